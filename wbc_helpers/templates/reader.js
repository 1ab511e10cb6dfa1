/* Reading photographs of smears in a browser: what `wbc count` does in Python, function by function.

It stands on `pixels.js`, and as there each function bears the name of its Python twin. The networks
are those that ship, run by ONNX Runtime. A box is a row of `detector.READ_COLUMNS`, its corners
together as `box`.

    await openReader({ opencv, ort, providers, detector, classifier, learned, about });
    useLaboratory(await file.text());
    for await (const photograph of countFiles(files, redCell)) …

`opencv` and `ort` are the libraries, `providers` where the latter is to run; the networks are files
of ONNX as an ArrayBuffer, as is what the classifier learned from, `centre` and `examples` of
`teaching.Learned` in float32; `about` is {detector, classifier, answers, other, kinds}: what is known
of the networks, and what their outputs stand for. A photograph is a line of the journal of `wbc count`, with `fit`, or {file, problem}. */
"use strict";

let ort = null, about = null, detector = null, classifier = null, shipped = null, learned = null;
let laboratory = null; // that taught the answers

/** Take the libraries and start the networks; one question to each, so that the next is fast. */
async function openReader(given) {
  ({ ort, about } = given);
  cv = await given.opencv;
  const start = (network) => ort.InferenceSession.create(network, { executionProviders: given.providers });
  detector = await start(given.detector);
  classifier = await start(given.classifier);
  learned = shipped = new Float32Array(given.learned);
  await maps(raster(240, 320, 3));
  await name([raster(...about.classifier.image_size, 3)]);
}

/** Ask a network about rasters of one size: each of its answers as {data, dims}, by name. */
async function ask(network, rasters) {
  const [{ height, width, channels }] = rasters;
  const stacked = new Uint8Array(rasters.length * height * width * channels);
  rasters.forEach(({ data }, place) => stacked.set(data, place * data.length));
  const shown = new ort.Tensor("uint8", stacked, [rasters.length, height, width, channels]);
  return network.run({ [network.inputNames[0]]: shown });
}

// count/network

const STRIDE = 2, SMALLEST_PLATELET = 10;

/** Read boxes out of maps {height, width, channels, data}: [{box, kind, score}], kind a number. */
function findBoxes(maps, iou, lowest, nKinds) {
  const { height, width, channels, data } = maps, boxes = [];
  const most = Math.max(rint((height * width) / (SMALLEST_PLATELET / STRIDE) ** 2), 1);
  for (let kind = 0; kind < nKinds; kind++) {
    const summits = [];
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const score = data[(y * width + x) * channels + kind];
        if (score < lowest) continue;
        let isHighest = true;
        for (let line = Math.max(y - 1, 0); line <= Math.min(y + 1, height - 1); line++)
          for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column++)
            isHighest &&= data[(line * width + column) * channels + kind] <= score;
        if (isHighest) summits.push({ x, y, score });
      }
    const surest = summits.sort((a, b) => b.score - a.score).slice(0, most);
    boxes.push(...dropDoubles(surest.map(({ x, y, score }) => {
      const [logWidth, logHeight, right, down] = data.subarray(
        (y * width + x) * channels + nKinds, (y * width + x) * channels + nKinds + 4);
      const halfWidth = (Math.exp(clip(logWidth, -5, 5)) * RED_CELL) / 2;
      const halfHeight = (Math.exp(clip(logHeight, -5, 5)) * RED_CELL) / 2;
      const left = (x + 0.5 + right) * STRIDE, top = (y + 0.5 + down) * STRIDE;
      return { kind, score,
        box: [left - halfWidth, top - halfHeight, left + halfWidth, top + halfHeight] };
    }), iou));
  }
  return boxes;
}

/** The boxes of one kind that stand for a cell of their own, the surest first. */
function dropDoubles(boxes, iou) {
  const single = [];
  for (const box of [...boxes].sort((a, b) => b.score - a.score))
    if (box.score > 0 && single.every((surer) => overlap(surer.box, box.box) <= iou)) single.push(box);
  return single;
}
function overlap(a, b) {
  const shared = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0)
    * Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]);
  return shared / (both - shared);
}

// count/detector

const DEEPEST = 16, TILE = 768, MARGIN = 128, LOWEST = 0.02, UNSURE = 0.05;

/** As `_parts`: of each part of a side its start, and between where its cells lie. */
function parts(side) {
  const starts = [];
  for (let start = 0; start < side - TILE; start += TILE - 2 * MARGIN) starts.push(start);
  starts.push(Math.max(side - TILE, 0));
  const seam = (place) => (starts[place] + TILE + starts[place + 1]) / 2;
  return starts.map((start, place) => ({
    start,
    low: place ? seam(place - 1) - 8 : -Infinity,
    high: place < starts.length - 1 ? seam(place) + 8 : Infinity,
  }));
}

/** As `show`, and the size of what is shown before its border. */
function show(pixels, redCell) {
  const [height, width] = scaledSize(pixels, RED_CELL / redCell);
  const light = balance(resized(pixels, [height, width],
    redCell > RED_CELL ? cv.INTER_AREA : cv.INTER_LINEAR));
  const more = (side) => (DEEPEST - (side % DEEPEST)) % DEEPEST;
  const shown = transformed("copyMakeBorder", light, 0, more(height), 0, more(width),
    cv.BORDER_CONSTANT, new cv.Scalar(WHITE, WHITE, WHITE, WHITE));
  return { shown, height, width };
}

const FLIPS = [[], ["x"], ["y"], ["x", "y"]];

/** Turn lines or columns of a raster round. */
function flipped(image, axes) {
  const { height, width, channels, data } = image, turned = new data.constructor(data.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const line = axes.includes("y") ? height - 1 - y : y;
      const column = axes.includes("x") ? width - 1 - x : x;
      const from = (line * width + column) * channels;
      turned.set(data.subarray(from, from + channels), (y * width + x) * channels);
    }
  return raster(height, width, channels, turned);
}

/** The mean of what the network draws in each way of looking. */
async function maps(shown) {
  let sum = null;
  const ways = FLIPS.slice(0, about.detector.ways);
  for (const axes of ways) {
    const { maps: { data, dims } } = await ask(detector, [flipped(shown, axes)]);
    const [, height, width, channels] = dims;
    const turned = flipped(raster(height, width, channels, data), axes).data;
    // What lay to the right of a place lies to the left of it in the flipped photograph.
    const right = about.kinds.length + 2;
    const sign = (channel) => (axes.includes(channel === right ? "x" : "y") ? -1 : 1);
    for (let at = right; at < turned.length; at += channels) {
      turned[at] *= sign(right);
      turned[at + 1] *= sign(right + 1);
    }
    sum = sum ? mapped(sum, (value, place) => value + turned[place], Float32Array)
      : raster(height, width, channels, turned);
  }
  return mapped(sum, (value) => value / ways.length, Float32Array);
}

/** As `Detector._read`: of wide fields part by part. */
async function readBoxes(shown) {
  const { iou } = about.detector, nKinds = about.kinds.length;
  const boxes = [], [lines, columns] = [parts(shown.height), parts(shown.width)];
  for (const line of lines)
    for (const column of columns) {
      const tile = cutFrom(shown, line.start, column.start,
        Math.min(TILE, shown.height), Math.min(TILE, shown.width));
      for (const box of findBoxes(await maps(tile), iou, LOWEST, nKinds)) {
        box.box = box.box.map((edge, place) => edge + (place % 2 ? line.start : column.start));
        const x = (box.box[0] + box.box[2]) / 2, y = (box.box[1] + box.box[3]) / 2;
        if (x >= column.low && x < column.high && y >= line.low && y < line.high) boxes.push(box);
      }
    }
  if (lines.length * columns.length === 1) return boxes;
  return about.kinds.flatMap((_, kind) => dropDoubles(boxes.filter((box) => box.kind === kind), iou));
}

/** As `SmearReader.read`, of one photograph. */
async function read(photograph, redCell) {
  const { shown, height, width } = show(photograph, redCell);
  const across = width / photograph.width, down = height / photograph.height;
  const boxes = (await readBoxes(shown)).map(({ box: [xMin, yMin, xMax, yMax], kind, score }) => {
    const kindName = about.kinds[kind], above = score - about.detector.thresholds[kindName];
    return {
      kind: kindName, score, counted: above >= 0, unsure: Math.abs(above) < UNSURE,
      box: [clip(xMin / across, 0, photograph.width), clip(yMin / down, 0, photograph.height),
            clip(xMax / across, 0, photograph.width), clip(yMax / down, 0, photograph.height)],
      cell_type: null, type_probability: null, answered: null, probabilities: null,
    };
  }).filter(({ box: [xMin, yMin, xMax, yMax], counted, unsure }) =>
    xMin < xMax && yMin < yMax && (counted || unsure));
  const white = boxes.filter(({ kind, counted }) => kind === "WBC" && counted);
  const named = white.length ? await name(cutBoxed(photograph, white, redCell)) : [];
  white.forEach((box, place) => {
    Object.assign(box, named[place]);
    box.unsure ||= !box.answered;
  });
  return boxes;
}

// classify/classifier

/** A crop of each boxed white cell, centred on its nucleus. */
function cutBoxed(photograph, boxes, redCell) {
  const size = about.classifier.image_size[0], located = locate(photograph, redCell);
  const resampled = resize(whiten(photograph), scaledSize(photograph, size / (SIDE * redCell)));
  return boxes.map(({ box }) => cutOut(resampled, photograph, meant(located, box), size));
}

/** Turn lines into columns. */
function transposed({ height, width, channels, data }) {
  const turned = raster(width, height, channels);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let channel = 0; channel < channels; channel++)
        turned.data[(x * height + y) * channels + channel] = data[(y * width + x) * channels + channel];
  return turned;
}

const CROPS_AT_A_TIME = 16, LEAST_PROBABILITY = 1.1754943508222875e-38;

/** As `Classifier.name`: by the mean over the eight ways to turn and flip a crop. */
async function name(crops) {
  const { temperature, unlike: most } = about.classifier, named = [];
  const { threshold } = laboratory ?? about.classifier;
  for (let start = 0; start < crops.length; start += CROPS_AT_A_TIME) {
    const some = crops.slice(start, start + CROPS_AT_A_TIME);
    const ways = some.flatMap((crop) => [crop, transposed(crop)]
      .flatMap((turned) => FLIPS.map((axes) => flipped(turned, axes))));
    const { probabilities: answers, features } = await ask(classifier, ways);
    some.forEach((_, crop) => {
      const own = meanOfWays(features, crop);
      const probabilities = softmax(laboratory ? taughtLogits(own) : meanOfWays(answers, crop).map(
        (share) => Math.log(Math.max(share, LEAST_PROBABILITY)) / temperature));
      const probability = Math.max(...probabilities);
      const cellType = about.answers[probabilities.indexOf(probability)];
      named.push({
        cell_type: cellType, type_probability: probability, probabilities,
        answered: probability >= threshold && cellType !== about.other
          && unlike(own) <= most,
      });
    });
  }
  return named;
}

function softmax(logits) {
  const highest = Math.max(...logits), parts = logits.map((logit) => Math.exp(logit - highest));
  const all = parts.reduce((sum, part) => sum + part, 0);
  return Array.from(parts, (part) => part / all);
}

function meanOfWays({ data, dims: [, n] }, crop) {
  const sum = new Float64Array(n);
  for (let way = 0; way < 8; way++)
    for (let place = 0; place < n; place++) sum[place] += data[(8 * crop + way) * n + place] / 8;
  return sum;
}

// classify/teaching

const FORMAT = 1;

/** Answer as a laboratory taught, by the text of its file, or without one as it ships; its name. */
function useLaboratory(text = null) {
  laboratory = text === null ? null : openLaboratory(text);
  learned = laboratory ? Float32Array.from([...shipped, ...laboratory.examples.flat()]) : shipped;
  return laboratory?.name ?? null;
}

/** As `open_laboratory`. */
function openLaboratory(text) {
  const { created, features } = about.classifier, n = about.answers.length;
  const isTable = (rows, width) => Array.isArray(rows)
    && rows.every((row) => Array.isArray(row) && row.length === width && row.every(Number.isFinite));
  let content = null;
  try { content = JSON.parse(text); } catch { /* said below */ }
  const { format, answers, of, name: itsName, weights, bias, examples, threshold } = content ?? {};
  const isOne = format === FORMAT && String(answers) === String(about.answers) && itsName
    && isTable(weights, n) && weights.length === features && isTable([bias], n)
    && isTable(examples, features) && Number.isFinite(threshold);
  if (!isOne)
    throw new Error("is no laboratory's file, is damaged or of another version. Expected what "
      + "`wbc teach` writes: laboratories/NAME.json.");
  if (of !== created)
    throw new Error(`was taught to the weights of ${of}; in this page are those of ${created}. `
      + "Teach it anew from the same labels, under a new name, or write the page anew.");
  return { name: itsName, weights, bias, examples, threshold };
}

const taughtLogits = (features) => laboratory.bias.map((bias, answer) =>
  features.reduce((sum, value, place) => sum + value * laboratory.weights[place][answer], bias));

/** How unlike all cells that were learned from a cell is, 0–1. */
function unlike(features) {
  const n = features.length, away = features.map((value, place) => value - learned[place]);
  const length = Math.max(Math.hypot(...away), 1e-6);
  let most = -1;
  for (let example = n; example < learned.length; example += n)
    most = Math.max(most, away.reduce((sum, value, place) => sum + value * learned[example + place], 0));
  return clip(1 - most / length, 0, 1);
}

// count/fitness

const NO_SMEAR = "no smear", NO_CELL = "no cell", OUT_OF_FOCUS = "out of focus";
const OVER_EXPOSED = "over-exposed", UNDER_EXPOSED = "under-exposed";
const TOO_SMALL = "magnification too low for cell types";
const WRONG_WIDTH = "red cells of another width than given";
const SMALLEST_TO_NAME = 24, BURNT = 253, BLURRED = 11;
const AGREES = 0.15, CONTRADICTS = 0.29, MOST_READINGS = 5, FEWEST_TO_MEASURE = 5;

function measure(photograph, redCell) {
  const { height, width } = photograph;
  const down = rint(Math.min(9 * redCell, height)), across = rint(Math.min(12 * redCell, width));
  const middle = cutFrom(photograph, Math.floor((height - down) / 2), Math.floor((width - across) / 2),
                         down, across);
  const scale = Math.min(RED_CELL / redCell, 1.5);
  const scaled = resize(middle, scaledSize(middle, scale));
  const { contrast, edge } = sharpness(channelOf(scaled, 1));
  const image = everySecond(blurred(scaled, 1));
  const light = background(image).map((level) => absorbance(F(level)));
  const n = image.height * image.width, most = new Float32Array(n), levels = new Uint8Array(n);
  const least = new Float32Array(n), lightest = new Uint8Array(n), darkest = new Uint8Array(n);
  const isForeign = new Uint8Array(n);
  for (let place = 0, at = 0; place < n; place++, at += 3) {
    const r = image.data[at], g = image.data[at + 1], b = image.data[at + 2];
    const red = ABSORBANCE[r] - light[0], green = ABSORBANCE[g] - light[1];
    const blue = ABSORBANCE[b] - light[2];
    most[place] = Math.max(red, green, blue);
    least[place] = Math.min(red, green, blue);
    levels[place] = clip(green * 170, 0, 255);
    lightest[place] = Math.max(r, g, b);
    darkest[place] = Math.min(r, g, b);
    const margin = 0.1 * most[place] + 0.03;
    if (blue > Math.max(red, green) + margin || green < Math.min(red, blue) - margin)
      isForeign[place] = 1;
  }
  const threshold = clip(otsuOf(levels) / 170, 0.04, 0.12);
  const stained = [...most.keys()].filter((place) => most[place] > threshold);
  const weight = (place) => clip(most[place], 0, 1);
  const all = Math.max(stained.reduce((sum, place) => sum + weight(place), 0), 1e-6);
  const share = (of) => stained.reduce((sum, place) => sum + weight(place) * of(place), 0) / all;
  const partOf = (places, of) => (places.length ? places.filter(of).length / places.length : 0);
  return {
    brightness: quantile(lightest, 0.9),
    burnt: partOf(darkest, (level) => level >= BURNT),
    burntCells: partOf(stained, (place) => lightest[place] >= BURNT),
    contrast,
    edge: (edge * RED_CELL) / (redCell * scale),
    foreign: share((place) => isForeign[place]),
    colour: share((place) => (most[place] - least[place]) / Math.max(most[place], 1e-6)),
    density: stained.length ? median(stained.map((place) => most[place])) : 0,
  };
}

function everySecond({ height, width, channels, data }) {
  const half = raster(Math.ceil(height / 2), Math.ceil(width / 2), channels);
  for (let y = 0, to = 0; y < height; y += 2)
    for (let x = 0; x < width; x += 2)
      for (let channel = 0; channel < channels; channel++)
        half.data[to++] = data[(y * width + x) * channels + channel];
  return half;
}

function sharpness(green) {
  const absorbed = blurred(mapped(green, (level) => ABSORBANCE[level], Float32Array), 0.7);
  const slopes = [[1, 0], [0, 1]].map(([x, y]) =>
    transformed("Sobel", absorbed, cv.CV_32F, x, y, 3, 1 / 8, 0, cv.BORDER_DEFAULT).data);
  const slope = slopes[0].map((value, place) => Math.hypot(value, slopes[1][place]));
  const lowest = transformed("erode", absorbed, ones(15)).data;
  const contrast = dilate(absorbed, 15).data.map((value, place) => value - lowest[place]);
  const steepest = quantile(slope, 0.98), widths = [];
  slope.forEach((value, place) => {
    if (value >= steepest) widths.push(contrast[place] / Math.max(value, 1e-6));
  });
  return { contrast: quantile(contrast, 0.98), edge: median(widths) };
}

function judge(looks) {
  if (looks.brightness < 20) return [UNDER_EXPOSED];
  if (looks.contrast < 0.06) return [looks.burnt > 0.5 ? OVER_EXPOSED : NO_CELL];
  if (looks.colour < 0.25) return [looks.edge > BLURRED ? NO_CELL : NO_SMEAR];
  return looks.foreign > 0.6 || looks.density > 1.5 ? [NO_SMEAR] : [];
}

function judgeReading(looks, redCell, boxes) {
  const reasons = [];
  if (looks.burnt > 0.2 && looks.burntCells > 0.2) reasons.push(OVER_EXPOSED);
  if (looks.brightness < 60) reasons.push(UNDER_EXPOSED);
  if (looks.edge > BLURRED && redCell >= SMALLEST_TO_NAME) reasons.push(OUT_OF_FOCUS);
  if (!boxes.some(({ counted, kind }) => counted && kind !== "Platelets")) reasons.push(NO_CELL);
  if (redCell < SMALLEST_TO_NAME && !reasons.length) reasons.push(TOO_SMALL);
  return reasons;
}

/** The photograph without the dark surround of an eyepiece; itself where there is none. */
function fillSurround(photograph) {
  const { height, width } = photograph, scale = Math.min(240 / Math.max(height, width), 1);
  const small = resize(photograph, scaledSize(photograph, scale)), [h, w] = [small.height, small.width];
  const lightest = raster(h, w, 1);
  lightest.data.forEach((_, place) => {
    lightest.data[place] = Math.max(...small.data.subarray(3 * place, 3 * place + 3));
  });
  const brightness = transformed("medianBlur", lightest, 5), bright = quantile(brightness.data, 0.95);
  const of = connectedComponents(mapped(brightness, (level) => (level < 0.5 * bright ? 1 : 0)));
  const corners = [0, w - 1, (h - 1) * w, h * w - 1].map((place) => of[place]).filter((part) => part);
  const surround = Array.from(of, (part) => corners.includes(part));
  const share = surround.filter((isDark) => isDark).length / of.length;
  if (corners.length < 2 || share <= 0.03 || share >= 0.95) return photograph;
  const mask = borrowing(() => {
    const lit = largest(raster(h, w, 1, Uint8Array.from(surround, (isDark) => (isDark ? 0 : 1))));
    const around = matrix(), whole = matrix(raster(h, w, 1));
    cv.convexHull(largestContour(lit), around);
    cv.fillConvexPoly(whole, around, new cv.Scalar(1));
    const area = whole.data.reduce((sum, value) => sum + value, 0);
    if (lit.data.reduce((sum, value) => sum + value, 0) < 0.93 * area) return null;
    const side = 2 * Math.max(rint(0.02 * Math.sqrt(area)), 2) + 1;
    const padded = transformed("copyMakeBorder", rasterOf(whole), 1, 1, 1, 1, cv.BORDER_REPLICATE,
                               new cv.Scalar(0));
    const inside = transformed("erode", padded, ones(side));
    return resize(mapped(cutFrom(inside, 1, 1, h, w), (value) => 255 * value), [height, width]);
  });
  if (!mask) return photograph;
  const places = [...mask.data.keys()].filter((place) => mask.data[place] > 127);
  const lit = raster(1, places.length, 3);
  places.forEach((place, to) => lit.data.set(photograph.data.subarray(3 * place, 3 * place + 3), 3 * to));
  const colour = background(lit);
  return mapped(photograph, (level, at) => (mask.data[Math.floor(at / 3)] > 127 ? level : colour[at % 3]));
}
const largestContour = (mask) => findContours(mask, "RETR_EXTERNAL").map(({ contour }) => contour)
  .reduce((best, contour) => (cv.contourArea(contour) > cv.contourArea(best) ? contour : best));
const largest = (mask) => filledContour(largestContour(mask), mask.height, mask.width);

async function readAtOwnScale(photograph, boxes, redCell) {
  const readingOf = (of, at) => ({ boxes: of, redCell: at, measured: measuredRedCell(of, photograph) });
  const differ = (a, b) => Math.abs(Math.log(a / b));
  const readings = [readingOf(boxes, redCell)];
  let following = readings[0].measured;
  if (isNaN(following)) {
    following = redCellDiameter(photograph);
    if (!(differ(following, redCell) > CONTRADICTS)) return readings[0];
  }
  const most = Math.min(LARGEST_RED_CELL, photograph.height, photograph.width);
  for (let time = 0; time < MOST_READINGS; time++) {
    if (!(following >= SMALLEST_RED_CELL && following <= most)) break;
    if (differ(following, readings.at(-1).redCell) <= AGREES) break;
    readings.push(readingOf(await read(photograph, following), following));
    following = readings.at(-1).measured;
  }
  const least = 0.5 * Math.max(...readings.map((reading) => evidence(reading.boxes)));
  const disagreement = ({ measured, redCell: at }) =>
    (isFinite(measured) ? differ(measured, at) : Infinity);
  return readings.filter((reading) => evidence(reading.boxes) >= least)
    .reduce((best, reading) => (disagreement(reading) < disagreement(best) ? reading : best));
}

function firstGuess(photograph) {
  const estimate = redCellDiameter(photograph), side = Math.min(photograph.height, photograph.width);
  if (isUsable(estimate) && estimate <= side) return estimate;
  return Math.max(side / 4.6, SMALLEST_RED_CELL);
}

function measuredRedCell(boxes, { height, width }) {
  const red = sidesInside(boxes, width, height);
  return red.length >= FEWEST_TO_MEASURE ? median(red) : NaN;
}

const evidence = (boxes) => boxes.filter(({ kind }) => kind === "RBC").reduce(
  (sum, { box, score }) => sum + (box[2] - box[0]) * (box[3] - box[1]) * score, 0);

// count/smears

const N_TO_CHECK = 4;

/** Count photographs, as the folder of them: of each its line, or its name and what failed. */
async function* countFiles(files, givenRedCell = null) {
  const redCell = givenRedCell ?? (await folderScale(files));
  for (const file of files) {
    try {
      yield await countOne(file, redCell, givenRedCell !== null, files.length > 1);
    } catch (error) {
      yield { file: file.name, problem: error instanceof UnreadableImage
        ? error.message : `could not be read here (${error.message ?? error})` };
    }
  }
}

async function lookAt(file, redCell) {
  const photograph = await readPhotograph(file), { height, width } = photograph;
  if (Math.min(height, width) < redCell)
    throw new UnreadableImage(`has ${width} × ${height} pixels, less than a red cell.`);
  const filled = fillSurround(photograph);
  return { ...filled, note: filled === photograph ? "" : "dark surround left out" };
}

/** The red cells' width over a folder, which the boxes of a few check; null if nothing tells it. */
async function folderScale(files) {
  const estimate = await estimateScale(files, lookAt);
  if (estimate === null || files.length <= N_TO_CHECK) return estimate;
  const measured = [];
  for (const place of linspace(files.length, N_TO_CHECK).map(Math.floor)) {
    try {
      const photograph = await lookAt(files[place], estimate);
      if (judge(measure(photograph, estimate)).length) continue;
      const boxes = await read(photograph, estimate);
      measured.push((await readAtOwnScale(photograph, boxes, estimate)).measured);
    } catch (error) {
      if (!(error instanceof UnreadableImage)) throw error;
    }
  }
  const usable = measured.filter(isFinite).sort((a, b) => a - b);
  const agrees = usable.some((width) => Math.abs(Math.log(width / estimate)) <= AGREES);
  return usable.length && !agrees ? usable[Math.floor(usable.length / 2)] : estimate;
}

/** As `_read_batch`, of one photograph. */
async function countOne(file, redCell, isGiven, several) {
  const photograph = await lookAt(file, redCell ?? SMALLEST_RED_CELL);
  const start = redCell ?? firstGuess(photograph), notes = photograph.note ? [photograph.note] : [];
  let looks = measure(photograph, start), at = start;
  const hopeless = judge(looks);
  if (hopeless.length) return line(file, photograph, [], start, hopeless, notes);
  let boxes = await read(photograph, start);
  const reading = await readAtOwnScale(photograph, boxes, start);
  const differs = Math.abs(Math.log(reading.redCell / start)) > CONTRADICTS;
  if (!isGiven && reading.redCell !== start) {
    ({ boxes, redCell: at } = reading);
    looks = measure(photograph, at);
  }
  const anew = judge(looks), unfit = anew.length ? anew : judgeReading(looks, at, boxes);
  if (differs && isGiven) {
    unfit.unshift(WRONG_WIDTH);
    notes.push(`red cells about ${reading.redCell.toFixed(0)} pixels wide, not ${at.toFixed(0)}`);
  } else if (differs && redCell !== null && several) {
    notes.push("red cells of another width than in the folder");
  } else if (redCell === null && isNaN(reading.measured)) {
    notes.push("scale unsure: too few red cells; give their width as red_cell");
  }
  return line(file, photograph, boxes, at, unfit, notes);
}

/** As `_line`, with what `_count_boxes` and `read_counted` make of it. */
function line(file, { width, height }, boxes, redCell, reasons, notes) {
  const rounded = (value, digits) => (value === null ? null : rint(value * 10 ** digits) / 10 ** digits);
  return {
    file: file.name, width, height, red_cell: rounded(redCell, 1), reasons, note: notes.join("; "),
    fit: reasons.every((reason) => reason === TOO_SMALL),
    boxes: boxes.map((row) => {
      const box = row.box.map((edge) => rounded(edge, 1));
      return {
        ...row, box, score: rounded(row.score, 4),
        type_probability: rounded(row.type_probability, 4),
        probabilities: row.probabilities?.map((share) => rounded(share, 4)) ?? null,
        answered: row.answered === null ? null : row.answered && !reasons.length,
      };
    }),
  };
}
