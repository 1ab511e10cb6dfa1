/* Pixels of photographs in a browser: the room `pixels` of the Python package, function by function.

Each function bears the name of its Python twin, whose docstring says what it does and why; the
headings name the modules. OpenCV is the same code, compiled to WebAssembly. A raster is {height,
width, channels, data}, its data RGB in a Uint8Array, or other channels in a Uint8Array or
Float32Array.
Beside it stands `reader.js`, which is what `wbc count` does with the networks. */
"use strict";

/** A photograph cannot be read, for a reason that a person understands. */
class UnreadableImage extends Error {}

let cv = null;

// Numbers, as NumPy computes them

const F = Math.fround;
const clip = (value, low, high) => Math.min(Math.max(value, low), high);

/** To the nearest whole number, halves to the even one. */
function rint(value) {
  const below = Math.floor(value), rest = value - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}

/** The number below which that part of some lies, 0–1, between neighbours in proportion. */
function quantile(numbers, part) {
  const sorted = (ArrayBuffer.isView(numbers) ? numbers.slice() : new Float64Array(numbers)).sort();
  const place = part * (sorted.length - 1), below = Math.floor(place);
  const after = sorted[Math.min(below + 1, sorted.length - 1)];
  return sorted[below] + (after - sorted[below]) * (place - below);
}
const median = (numbers) => quantile(numbers, 0.5);
const linspace = (count, n) =>
  Array.from({ length: n }, (_, place) => (n > 1 ? (place * (count - 1)) / (n - 1) : 0));

// Rasters and OpenCV's matrices, which have to be given back

const raster = (height, width, channels, data) =>
  ({ height, width, channels, data: data ?? new Uint8Array(height * width * channels) });

/** What a function of each number and its place gives; many times as fast as `from` and `filter`. */
function numbers(from, change, Kind = Uint8Array) {
  const made = new Kind(from.length);
  for (let place = 0; place < made.length; place++) made[place] = change(from[place], place);
  return made;
}
const mapped = (image, change, Kind = Uint8Array) =>
  raster(image.height, image.width, image.channels, numbers(image.data, change, Kind));

function channelOf({ height, width, channels, data }, channel) {
  const made = raster(height, width, 1);
  for (let place = 0, at = channel; at < data.length; place++, at += channels)
    made.data[place] = data[at];
  return made;
}

/** The part of a raster whose corner lies at `top`, `left`. */
function cutFrom({ width, channels, data }, top, left, height, across) {
  const part = raster(height, across, channels, new data.constructor(height * across * channels));
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * width + left) * channels;
    part.data.set(data.subarray(from, from + across * channels), y * across * channels);
  }
  return part;
}

let lent = [];

/** Call `work`, and give back whatever matrices it borrowed by `matrix`. */
function borrowing(work) {
  const before = lent;
  lent = [];
  try {
    return work();
  } finally {
    for (const borrowed of lent) borrowed.delete();
    lent = before;
  }
}
function borrowed(object) {
  lent.push(object);
  return object;
}
function matrix(image) {
  if (!image) return borrowed(new cv.Mat());
  const depth = image.data instanceof Float32Array ? "32F" : "8U";
  const made = borrowed(new cv.Mat(image.height, image.width, cv[`CV_${depth}C${image.channels}`]));
  (depth === "32F" ? made.data32F : made.data).set(image.data);
  return made;
}
function rasterOf(made) {
  const data = { [cv.CV_32F]: made.data32F, [cv.CV_32S]: made.data32S }[made.depth()] ?? made.data;
  return raster(made.rows, made.cols, made.channels(), data.slice());
}

/** Call a function of OpenCV on a raster: source, target, and what else it takes. */
const transformed = (name, image, ...more) => borrowing(() => {
  const target = matrix();
  cv[name](matrix(image), target, ...more.map((value) => (value?.data ? matrix(value) : value)));
  return rasterOf(target);
});
const ones = (side) => raster(side, side, 1, new Uint8Array(side * side).fill(1));
const dilate = (mask, side) => transformed("dilate", mask, ones(side));
const blurred = (image, sigma) =>
  transformed("GaussianBlur", image, new cv.Size(0, 0), sigma, 0, cv.BORDER_DEFAULT);
const morphed = (image, what, kernel, border = cv.BORDER_CONSTANT) => transformed("morphologyEx",
  image, cv[what], kernel, new cv.Point(-1, -1), 1, border, cv.morphologyDefaultBorderValue());
const disc = (side) => borrowing(() =>
  rasterOf(borrowed(cv.getStructuringElement(cv.MORPH_ELLIPSE, new cv.Size(side, side)))));

/** Otsu's threshold of grey levels, a Uint8Array. */
const otsuOf = (levels) => borrowing(() =>
  cv.threshold(matrix(raster(1, levels.length, 1, levels)), matrix(), 0, 255,
               cv.THRESH_BINARY | cv.THRESH_OTSU));

function connectedComponents(mask) {
  return borrowing(() => {
    const parts = matrix();
    cv.connectedComponents(matrix(mask), parts);
    return rasterOf(parts).data;
  });
}

/** The contours of a mask, each with the place of its parent, or −1. */
function findContours(mask, mode) {
  const contours = borrowed(new cv.MatVector()), hierarchy = matrix();
  cv.findContours(matrix(mask), contours, hierarchy, cv[mode], cv.CHAIN_APPROX_SIMPLE);
  return Array.from({ length: contours.size() }, (_, place) =>
    ({ contour: borrowed(contours.get(place)), parent: hierarchy.data32S[4 * place + 3] }));
}

/** Convex hull of points [x, y], in their order around it (Andrew's monotone chain). */
function convexHull(points) {
  const sorted = [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const turn = (a, b, c) => (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
  const half = (along) => {
    const chain = [];
    for (const point of along) {
      while (chain.length > 1 && turn(chain.at(-2), chain.at(-1), point) <= 0) chain.pop();
      chain.push(point);
    }
    return chain.slice(0, -1);
  };
  return sorted.length < 2 ? sorted : [...half(sorted), ...half(sorted.reverse())];
}

/** Twice the area of a polygon, and the sums of its centre of gravity. */
function polygonSums(polygon) {
  let twice = 0, x = 0, y = 0;
  polygon.forEach(([x0, y0], place) => {
    const [x1, y1] = polygon[(place + 1) % polygon.length], cross = x0 * y1 - x1 * y0;
    twice += cross, x += (x0 + x1) * cross, y += (y0 + y1) * cross;
  });
  return { twice, x, y };
}

// pixels/images

const MAX_PIXELS = 50_000_000;
const WHAT_TO_DO = "Expected a complete colour photograph; save it as PNG or JPEG.";

/** Decode a file to RGB, upright, what is transparent in white. */
async function readPhotograph(file) {
  checkHeader(new Uint8Array(await file.arrayBuffer()));
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new UnreadableImage(`is damaged, or of a kind that this browser does not read. ${WHAT_TO_DO}`);
  }
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS)
    throw new UnreadableImage(`has ${width} × ${height} pixels, more than are read. ${WHAT_TO_DO}`);
  const canvas = new OffscreenCanvas(width, height);
  const drawing = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  drawing.fillStyle = "white";
  drawing.fillRect(0, 0, width, height);
  drawing.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = drawing.getImageData(0, 0, width, height);
  const pixels = raster(height, width, 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    pixels.data[to] = data[from];
    pixels.data[to + 1] = data[from + 1];
    pixels.data[to + 2] = data[from + 2];
  }
  return pixels;
}

/** Refuse what a browser would decode without a word: cut off, grey, of more than 8 bits. */
function checkHeader(bytes) {
  const grey = "is greyscale; the stain's colours cannot be told from it. " + WHAT_TO_DO;
  const contains = (text, from) => {
    for (let at = from; at <= bytes.length - text.length; at++)
      if (text.every((byte, place) => bytes[at + place] === byte)) return true;
    return false;
  };
  const cutOff = new UnreadableImage(`is damaged or cut off. ${WHAT_TO_DO}`);
  if (!bytes.length) throw new UnreadableImage(`is empty (0 bytes). ${WHAT_TO_DO}`);
  if (bytes[0] === 0x89 && bytes[1] === 0x50) {
    if (bytes[25] === 0 || bytes[25] === 4) throw new UnreadableImage(grey);
    if (bytes[24] === 16)
      throw new UnreadableImage("has 16 bits a channel, of which a browser keeps 8. " + WHAT_TO_DO);
    if (!contains([0x49, 0x45, 0x4e, 0x44], bytes.length - 4096 > 0 ? bytes.length - 4096 : 0))
      throw cutOff;
  } else if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    let at = 2;
    for (; at < bytes.length && bytes[at + 1] !== 0xda; at += 2 + (bytes[at + 2] << 8) + bytes[at + 3]) {
      const isFrame = (bytes[at + 1] & 0xf0) === 0xc0 && ![0xc4, 0xc8, 0xcc].includes(bytes[at + 1]);
      if (isFrame && bytes[at + 9] === 1) throw new UnreadableImage(grey);
    }
    if (!contains([0xff, 0xd9], at)) throw cutOff;
  }
}

const scaledSize = (image, scale) =>
  [Math.max(rint(image.height * scale), 1), Math.max(rint(image.width * scale), 1)];
const resized = (image, [height, width], interpolation) =>
  transformed("resize", image, new cv.Size(width, height), 0, 0, interpolation);
const resize = (image, size) => resized(image, size,
  size[0] * size[1] < image.height * image.width ? cv.INTER_AREA : cv.INTER_LINEAR);
const resample = (image, scale) =>
  Math.abs(scale - 1) < 0.01 ? image : resize(image, scaledSize(image, scale));

// pixels/stain

const WHITE = 235;
const absorbance = (level) => -Math.log((level + 1) / 256);
const ABSORBANCE = Float32Array.from({ length: 256 }, (_, level) => -F(Math.log(F((level + 1) / 256))));
const USUAL_BACKGROUND = [220, 215, 225];
const FEWEST = 20;

/** Tell the black fill from the smear: a mask. */
function isFill({ height, width, data }) {
  const mask = raster(height, width, 1);
  for (let place = 0, at = 0; place < mask.data.length; place++, at += 3)
    mask.data[place] = data[at] < 16 && data[at + 1] < 16 && data[at + 2] < 16 ? 1 : 0;
  return mask;
}

function background({ height, width, data }) {
  const smear = [];
  for (let y = 0; y < height; y += 3)
    for (let x = 0; x < width; x += 3) {
      const at = 3 * (y * width + x);
      if (data[at] >= 16 || data[at + 1] >= 16 || data[at + 2] >= 16) smear.push(at);
    }
  if (smear.length < FEWEST) return USUAL_BACKGROUND;
  const otsu = otsuOf(Uint8Array.from(smear, (at) => data[at + 1]));
  const bright = smear.filter((at) => data[at + 1] > otsu);
  if (bright.length < FEWEST) return USUAL_BACKGROUND;
  return [0, 1, 2].map((channel) => median(bright.map((at) => data[at + channel])));
}

function whiten(image) {
  const field = lightField(image), { height, width, data } = image;
  if (field.every((of) => of.slice(1).every((term) => term === 0)))
    return withoutFill(image, lookedUp(image, field.map((of) => F(Math.exp(-of[0])))));
  const white = raster(height, width, 3);
  for (let y = 0, at = 0; y < height; y++) {
    const down = across(y, height);
    for (let x = 0; x < width; x++) {
      const right = across(x, width);
      for (let channel = 0; channel < 3; channel++, at++) {
        const light = F((data[at] + 1) * F(Math.exp(-logAt(field[channel], right, down))));
        white.data[at] = clip(rint(F(F((WHITE + 1) * light) - 1)), 0, 255);
      }
    }
  }
  return withoutFill(image, white);
}

/** The logarithm of the light at a place, −1 to 1 both ways: terms as of `_terms`. */
const logAt = (of, x, y) =>
  F(of[0] + of[1] * x + of[2] * y + of[3] * F(x * x) + of[4] * F(x * y) + of[5] * F(y * y));
const across = (place, side) => (side > 1 ? F(-1 + (2 * place) / (side - 1)) : -1);

function withoutFill(image, white) {
  const fill = isFill(image);
  if (!fill.data.includes(1)) return white;
  dilate(fill, 7).data.forEach((isNear, place) => {
    if (isNear) white.data.fill(WHITE, 3 * place, 3 * place + 3);
  });
  return white;
}

/** Multiply each channel's light by a number, as `cv2.LUT` does with the table of `_levels`. */
function lookedUp(image, factors) {
  const tables = factors.map((factor) => Uint8Array.from({ length: 256 }, (_, level) =>
    clip(rint((WHITE + 1) * ((level + 1) * factor) - 1), 0, 255)));
  return mapped(image, (level, at) => tables[at % 3][level]);
}

/** Coefficients of the background's light, six for each of three channels. */
function lightField(image) {
  const longest = Math.max(image.height, image.width);
  let small = image;
  if (longest > 96)
    small = resized(image, [image.height, image.width].map(
      (side) => Math.max(rint((side * 96) / longest), 8)), cv.INTER_AREA);
  const fill = isFill(small).data, smear = [...fill.keys()].filter((place) => !fill[place]);
  const oneColour = (colour) => colour.map((log) => [F(log), 0, 0, 0, 0, 0]);
  if (smear.length < FEWEST) return oneColour(USUAL_BACKGROUND.map((level) => Math.log(level + 1)));
  const places = smear.map((place) => [across(place % small.width, small.width),
                                       across(Math.floor(place / small.width), small.height)]);
  const light = [0, 1, 2].map((channel) => Float32Array.from(smear,
    (place) => Math.log(small.data[3 * place + channel] + 1)));
  let bright = brighter(light[1]);
  const missOf = (field) => light.reduce((sum, channel, place) => sum + bright.reduce(
    (all, row) => all + Math.abs(channel[row] - logAt(field[place], ...places[row])), 0), 0)
    / (3 * bright.length);
  const one = oneColour(light.map((channel) => median(bright.map((row) => channel[row]))));
  const misses = missOf(one);
  for (let round = 0; round < 6; round++) {
    const [green] = fitted(places, [light[1]], bright);
    const following = brighter(numbers(light[1],
      (log, row) => log - logAt(green, ...places[row]), Float32Array));
    if (following.length < Math.max(FEWEST, 0.02 * smear.length)) break;
    if (String(following) === String(bright)) break; // nothing would change any more
    bright = following;
  }
  const field = fitted(places, light, bright);
  return missOf(field) < 0.7 * misses ? field : one;
}

/** Least squares by Gauss's elimination, the curved terms held back a little. */
function fitted(places, light, rows) {
  const n = 6, system = Array.from({ length: n }, () => new Float64Array(n + light.length));
  for (const row of rows) {
    const [x, y] = places[row], terms = [1, x, y, F(x * x), F(x * y), F(y * y)];
    for (let line = 0; line < n; line++) {
      for (let column = 0; column < n; column++) system[line][column] += terms[line] * terms[column];
      for (let channel = 0; channel < light.length; channel++)
        system[line][n + channel] += terms[line] * light[channel][row];
    }
  }
  for (let line = 1; line < n; line++) system[line][line] += 0.02 * rows.length;
  for (let pivot = 0; pivot < n; pivot++)
    for (let line = 0; line < n; line++) {
      if (line === pivot) continue;
      const factor = system[line][pivot] / system[pivot][pivot];
      for (let column = pivot; column < n + light.length; column++)
        system[line][column] -= factor * system[pivot][column];
    }
  return light.map((_, channel) => system.map((line, place) => F(line[n + channel] / line[place])));
}

/** Rows of what Otsu's threshold calls bright; of the brighter half where that is too little. */
function brighter(light) {
  const low = quantile(light, 0.01), range = Math.max(quantile(light, 0.99) - low, 1e-3);
  const levels = numbers(light, (log) => clip(((log - low) / range) * 255, 0, 255));
  const otsu = otsuOf(levels), rows = [...light.keys()];
  const bright = rows.filter((row) => levels[row] > otsu);
  if (bright.length >= FEWEST) return bright;
  const middle = median(light);
  return rows.filter((row) => light[row] >= middle);
}

/** As `balance` without gain: of what ships, none asks for the stain to be changed. */
const balance = (image) => withoutFill(image,
  lookedUp(image, background(image).map((level) => F(1 / F(level + 1)))));

// pixels/stain: nuclei

const SMALLEST_NUCLEUS = 800, WIDEST_FIELD = 2.5, CHROMATIN = [0.38, 0.9];

function azure(white, blur) {
  const { data, height, width } = blurred(white, blur);
  const empty = F(absorbance(WHITE)), dye = raster(height, width, 1, new Float32Array(height * width));
  const light = (at) => F(ABSORBANCE[data[at]] - empty);
  for (let place = 0, at = 0; place < dye.data.length; place++, at += 3)
    dye.data[place] = F(F(light(at) + light(at + 1)) - light(at + 2));
  return dye;
}

function chromatin(white, blur = 1.5) {
  const dye = azure(white, blur), wide = opened(dye, WIDEST_FIELD * 52).data;
  for (let place = 0; place < wide.length; place++) dye.data[place] -= Math.max(wide[place], 0);
  const middle = median(dye.data), upperHalf = dye.data.filter((value) => value > middle);
  if (!upperHalf.length) return raster(white.height, white.width, 1);
  const otsu = otsuOf(numbers(upperHalf, (value) => rint(F(100 * clip(value, 0, 2.5)))));
  const threshold = clip((0.95 * otsu) / 100, ...CHROMATIN);
  return mapped(dye, (value) => (value > threshold ? 1 : 0));
}

function opened(dye, widest) {
  const size = [dye.height, dye.width].map((side) => Math.max(Math.floor(side / 4), 1));
  const coarse = resized(dye, size, cv.INTER_AREA);
  const open = morphed(coarse, "MORPH_OPEN", ones(Math.max(rint(widest / 4), 1)), cv.BORDER_REPLICATE);
  return resized(open, [dye.height, dye.width], cv.INTER_LINEAR);
}

const findNuclei = (image) => numbered(whiten(image), SMALLEST_NUCLEUS, 9);

/** Points of each nucleus, [[x, y], …], in the order of their numbers. */
function numbered(white, smallest, thinnest) {
  const marked = morphed(chromatin(white), "MORPH_OPEN", disc(thinnest));
  const parts = connectedComponents(dilate(marked, 9)), points = new Map();
  marked.data.forEach((isMarked, place) => {
    if (!isMarked) return;
    if (!points.has(parts[place])) points.set(parts[place], []);
    points.get(parts[place]).push([place % white.width, Math.floor(place / white.width)]);
  });
  return [...points].sort((a, b) => a[0] - b[0]).map(([, of]) => of)
    .filter((of) => of.length >= smallest);
}

function largestWidth(white) {
  const nuclei = numbered(white, 60, 3).sort((a, b) => b.length - a.length);
  for (const points of nuclei) {
    const area = Math.abs(polygonSums(convexHull(points)).twice) / 2;
    const width = Math.sqrt((4 / Math.PI) * Math.max(area, 1));
    if (width >= 14 && width <= 0.95 * Math.min(white.height, white.width)) return width;
  }
  return NaN;
}

// pixels/white_cells

const SIDE = 3.1;

/** Centres of the white cells, the largest nucleus first. */
function locate(image, redCell) {
  const resampled = resample(image, RED_CELL / redCell);
  const across = resampled.width / image.width, down = resampled.height / image.height;
  return findNuclei(resampled).sort((a, b) => b.length - a.length).map((points) => {
    const hull = convexHull(points), { twice, x, y } = polygonSums(hull);
    const mean = (axis) => hull.reduce((sum, point) => sum + point[axis], 0) / hull.length;
    const [left, top] = twice ? [x / (3 * twice), y / (3 * twice)] : [mean(0), mean(1)];
    return { x: (left + 0.5) / across - 0.5, y: (top + 0.5) / down - 0.5 };
  });
}

function meant(located, [xMin, yMin, xMax, yMax]) {
  const x = (xMin + xMax - 1) / 2, y = (yMin + yMax - 1) / 2;
  const inside = located.filter((cell) =>
    cell.x >= xMin && cell.x <= xMax && cell.y >= yMin && cell.y <= yMax);
  const away = (cell) => Math.hypot(cell.x - x, cell.y - y);
  return inside.reduce((best, cell) => (away(cell) < away(best) ? cell : best), inside[0] ?? { x, y });
}

function cutOut(resampled, image, cell, size) {
  const x = ((cell.x + 0.5) * resampled.width) / image.width - 0.5;
  const y = ((cell.y + 0.5) * resampled.height) / image.height - 0.5;
  const moved = raster(2, 3, 1, Float32Array.of(1, 0, (size - 1) / 2 - x, 0, 1, (size - 1) / 2 - y));
  return transformed("warpAffine", resampled, moved, new cv.Size(size, size), cv.INTER_LINEAR,
                     cv.BORDER_CONSTANT, new cv.Scalar(WHITE, WHITE, WHITE, WHITE));
}

// pixels/scale

const RED_CELL = 52, SMALLEST_RED_CELL = 10, LARGEST_RED_CELL = 1000, N_FOR_SCALE = 24;
const NUCLEUS = 1.35, SHARE = 0.65, RADIUS_PER_DIAMETER = 0.41;
const isUsable = (redCell) => redCell >= SMALLEST_RED_CELL && redCell <= LARGEST_RED_CELL;

function redCellDiameter(image) {
  const white = whiten(image), usual = Math.sqrt((320 * 240) / (image.height * image.width));
  let expected = NaN;
  for (const scale of [usual, 2 * usual, 4 * usual]) {
    expected = largestWidth(resample(white, scale)) / scale / NUCLEUS;
    if (isFinite(expected)) break;
  }
  if (!isFinite(expected)) {
    for (const scale of [usual, 2 * usual, 4 * usual]) {
      const first = diameter(white, RED_CELL / scale), ratio = (first * scale) / RED_CELL;
      if (isFinite(first)) return ratio > 0.8 && ratio < 1.25 ? first : diameter(white, first);
    }
    return NaN;
  }
  for (const factor of [1, 0.7, 1.45]) {
    const first = diameter(white, expected * factor), second = diameter(white, first);
    const ratio = second / expected;
    if (Math.abs(Math.log(second / first)) < 0.25 && ratio > 0.6 && ratio < 2.2) return second;
  }
  return expected;
}

/** As `_diameter`. */
function diameter(white, expected) {
  if (!(expected >= SMALLEST_RED_CELL / 2)) return NaN;
  const scaled = resample(white, RED_CELL / expected), { height, width } = scaled;
  const nuclei = dilate(chromatin(scaled, 1), 5);
  const empty = absorbance(WHITE);
  const green = numbers(channelOf(blurred(scaled, 1), 1).data,
    (level) => ABSORBANCE[level] - empty, Float32Array);
  const others = green.filter((_, place) => !nuclei.data[place]);
  if (others.length < 200) return NaN;
  const otsu = otsuOf(numbers(others, (value) => clip(F(F(value / F(0.8)) * 255), 0, 255)));
  const threshold = F(Math.max((otsu / 255) * 0.8, 0.04));
  let stained = raster(height, width, 1, numbers(green,
    (value, place) => (value > threshold && !nuclei.data[place] ? 1 : 0)));
  stained = mapped(morphed(stained, "MORPH_CLOSE", ones(5)),
    (isStained, place) => (nuclei.data[place] ? 0 : isStained));
  fillPaleCentres(stained, nuclei);
  stained = morphed(stained, "MORPH_OPEN", ones(3));
  const radius = blurred(distances(stained), 1), highest = dilate(radius, 21).data;
  const nearNucleus = dilate(nuclei, 9).data;
  const radii = radius.data.filter((value, place) =>
    value === highest[place] && value > 7 && !nearNucleus[place]).sort();
  if (radii.length < 3) return NaN;
  const all = radii.reduce((sum, value) => sum + value * value, 0);
  let sum = 0;
  const typical = radii.find((value) => (sum += value * value) >= SHARE * all);
  return ((typical / RADIUS_PER_DIAMETER) * expected) / RED_CELL;
}

/** Of each pixel how far the nearest background is, the frame's surround counted as such. */
function distances(mask) {
  const padded = transformed("copyMakeBorder", mask, 1, 1, 1, 1, cv.BORDER_CONSTANT, new cv.Scalar(0));
  return cutFrom(transformed("distanceTransform", padded, cv.DIST_L2, 5), 1, 1, mask.height, mask.width);
}

function fillPaleCentres(stained, nuclei) {
  borrowing(() => {
    for (const { contour, parent } of findContours(stained, "RETR_CCOMP")) {
      const area = cv.contourArea(contour), around = cv.arcLength(contour, true);
      if (parent < 0 || area >= 1300 || (area >= 200 && 4 * Math.PI * area < 0.6 * around ** 2))
        continue;
      const { x, y, width, height } = cv.boundingRect(contour);
      const hole = filledContour(contour, height, width, x, y);
      const places = [];
      hole.data.forEach((isHole, place) => {
        if (isHole)
          places.push((y + Math.floor(place / width)) * stained.width + x + (place % width));
      });
      if (!places.some((place) => nuclei.data[place]))
        for (const place of places) stained.data[place] = 1;
    }
  });
}

/** A contour, filled, in a mask of that size whose corner lies at x, y. */
function filledContour(contour, height, width, x = 0, y = 0) {
  const mask = matrix(raster(height, width, 1)), only = borrowed(new cv.MatVector());
  only.push_back(contour);
  cv.drawContours(mask, only, -1, new cv.Scalar(1), -1, cv.LINE_8, matrix(), 0x7fffffff,
                  new cv.Point(-x, -y));
  return rasterOf(mask);
}

/** The median over files of what each tells, spread evenly, or null; `look` makes pixels of one. */
async function estimateScale(files, look) {
  const estimates = [];
  for (const place of linspace(files.length, Math.min(N_FOR_SCALE, files.length)).map(rint)) {
    try {
      estimates.push(redCellDiameter(await look(files[place])));
    } catch (error) {
      if (!(error instanceof UnreadableImage)) throw error;
    }
  }
  const usable = estimates.filter(isUsable);
  return usable.length ? median(usable) : null;
}

function sidesInside(boxes, width, height) {
  return boxes.filter(({ kind, box: [xMin, yMin, xMax, yMax] }) =>
    kind === "RBC" && xMin > 2 && yMin > 2 && xMax < width - 2 && yMax < height - 2)
    .map(({ box: [xMin, yMin, xMax, yMax] }) => (xMax - xMin + yMax - yMin) / 2);
}
