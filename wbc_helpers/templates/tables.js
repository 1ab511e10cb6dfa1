/* What a gallery reckons and writes: exact intervals and what they say of a count, CSV there and
back, ZIP archives, workbooks. Nothing here knows the page. */
"use strict";

const Tables = (() => {
  // Numbers

  const LANCZOS = [676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
                   12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6,
                   1.5056327351493116e-7];
  function logGamma(z) {
    const t = z + 6.5;
    const sum = LANCZOS.reduce((all, c, place) => all + c / (z + place), 0.99999999999980993);
    return Math.log(2 * Math.PI) / 2 + (z - 0.5) * Math.log(t) - t + Math.log(sum);
  }

  /** The regularised incomplete beta function, by its continued fraction (Lentz). */
  function betaShare(x, a, b) {
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    if (x > (a + 1) / (a + b + 2)) return 1 - betaShare(1 - x, b, a);
    const tiny = 1e-300;
    let c = 1, d = 1 / (1 - (a + b) * x / (a + 1) || tiny), value = d;
    for (let m = 1; m < 20000; m++) {
      const even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
      const odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
      let step = 1;
      for (const term of [even, odd]) {
        d = 1 / (1 + term * d || tiny);
        c = 1 + term / c || tiny;
        value *= step = c * d;
      }
      if (Math.abs(step - 1) < 1e-15) break;
    }
    const front = logGamma(a + b) - logGamma(a) - logGamma(b);
    return value * Math.exp(front + a * Math.log(x) + b * Math.log1p(-x)) / a;
  }

  function betaQuantile(share, a, b) {
    let low = 0, high = 1;
    for (let halving = 0; halving < 60; halving++) {
      const middle = (low + high) / 2;
      if (betaShare(middle, a, b) < share) low = middle; else high = middle;
    }
    return (low + high) / 2;
  }

  /** Exact interval of a proportion, 0–1, after Clopper and Pearson; of no cell all of 0–1. */
  function exactInterval(count, n, confidence = 0.95) {
    const tail = (1 - confidence) / 2;
    return [count > 0 ? betaQuantile(tail, count, n - count + 1) : 0,
            count < n ? betaQuantile(1 - tail, count + 1, n - count) : 1];
  }

  // Words: numbers as Python writes them

  const whole = (number) => number.toLocaleString("en");
  const plural = (n, one, more) => `${whole(n)} ${n === 1 ? one : more}`;
  const { format: tenths } = new Intl.NumberFormat("en", {
    minimumFractionDigits: 1, maximumFractionDigits: 1, roundingMode: "halfEven" });
  const short = (ratio) => ratio >= 100 ? whole(Math.round(ratio)) : `${+ratio.toPrecision(3)}`;

  // What a count says: twins of `count/differential` and `evaluate/detection`

  const MOST_CELLS = 1_000_000, TOUCHES = 0.04;

  /** How many cells it would take for the interval to leave the range, which is in per cent. */
  function cellsNeeded(count, n, [least, most], confidence) {
    const part = count / n, [low, high] = [least / 100, most / 100], tail = (1 - confidence) / 2;
    if (low <= part && part <= high) return 0;
    // An end of an interval lies where so much of the beta distribution does; it need not be known.
    const isOutside = (nCells) => part < low
      ? betaShare(low, part * nCells + 1, nCells - part * nCells) > 1 - tail
      : betaShare(high, part * nCells, nCells - part * nCells + 1) < tail;
    let few = 0, many = 1;
    for (; !isOutside(many); few = many, many *= 2) if (many > MOST_CELLS) return MOST_CELLS + 1;
    while (many - few > 1) {
      const middle = Math.floor((few + many) / 2);
      if (isOutside(middle)) many = middle; else few = middle;
    }
    return many;
  }

  /** A row of `Differential.table`, of a type {name, low, high, fewer, more}. */
  function judgeType(type, count, n, confidence, leastCells) {
    const [low, high] = exactInterval(count, n, confidence).map((share) => 100 * share);
    const percent = n ? 100 * count / n : NaN, side = percent < type.low ? "below" : "above";
    const verdict = n < leastCells ? "unclear" : high < type.low || low > type.high ? side
      : low >= type.low && high <= type.high ? "within" : "unclear";
    const needed = n ? cellsNeeded(count, n, [type.low, type.high], confidence) : 0;
    const edges = `the adult range of ${type.low}–${type.high}%`;
    const share = `${type.name}s: ${tenths(percent)}% (${tenths(low)}–${tenths(high)}%)`;
    const remark = !n ? `${type.name}s: no white cell was named.`
      : verdict === side ? `${share}, ${side} ${edges}: relative `
        + `${side === "below" ? type.fewer : type.more}, something to look at.`
      : verdict === "within" ? `${share}, within ${edges}.`
      : !needed ? `${share}; ${whole(n)} cells agree with ${edges}, and with others.`
      : needed > MOST_CELLS ? `${share}, at the edge of ${edges}: no count would decide.`
      : `${share}, ${side} ${edges}, but ${whole(n)} cells are too few to say so: at this `
        + `proportion it would take ${whole(Math.max(needed, leastCells))}.`;
    return { type, count, percent, low, high, verdict, remark };
  }

  /** A row of `Differential.ratios`, of {low, high, fewer, more}; without `fewer` unremarked. */
  function judgeRatio(reference, first, second, confidence, leastCells) {
    const n = first + second, [low, high] = exactInterval(first, n, confidence);
    const [least, most] = [reference.low, reference.high].map((ratio) => 100 * ratio / (1 + ratio));
    const values = second ? [first / second, low / (1 - low), high / (1 - high)] : [NaN, NaN, NaN];
    const row = { reference, first, second, ratio: values[0], low: values[1], high: values[2] };
    if (!reference.fewer || !n) return { ...row, remark: "" };
    const needed = cellsNeeded(first, n, [least, most], confidence);
    const called = 100 * first / n < least ? reference.fewer : reference.more;
    const isWithin = 100 * low >= least && 100 * high <= most;
    const remark = !needed ? isWithin ? "Within what the adult ranges allow."
        : `${whole(n)} red cells and platelets agree with the adult ranges, and with others.`
      : n >= leastCells && (100 * high < least || 100 * low > most)
        ? `That is ${called}: something to look at.`
      : needed > MOST_CELLS
        ? "At the edge of what the adult ranges allow: no count would decide."
      : `Outside what the adult ranges allow, but ${whole(n)} red cells and platelets are too few `
        + `to say so: at this ratio it would take ${whole(Math.max(needed, leastCells))}.`;
    return { ...row, remark };
  }

  /** Whether the frame of a photograph cuts a box, and whether a counting frame counts it. */
  function framing([xMin, yMin, xMax, yMax], { width, height }) {
    const near = Math.max(TOUCHES * Math.max(xMax - xMin, yMax - yMin), 1.5);
    const framed = xMin > near && yMin > near;
    return { framed, cut: !framed || xMax >= width - near || yMax >= height - near };
  }

  // Text in HTML and XML

  const escaped = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

  // Files to take away: a ZIP whose members are stored as they are, and a workbook made of it

  const CRC = Uint32Array.from({ length: 256 }, (_, sum) => {
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? 0xedb88320 ^ (sum >>> 1) : sum >>> 1;
    return sum;
  });
  const bytes = (...numbers) => Uint8Array.from(numbers.flatMap(([number, n]) =>
    Array.from({ length: n }, (_, place) => (number >>> (8 * place)) & 255)));

  /** From [name, text] to the parts of a file. */
  function zip(files) {
    const members = [], places = [];
    let at = 0;
    for (const [name, text] of files) {
      const [title, body] = [name, text].map((part) => new TextEncoder().encode(part));
      const crc = ~body.reduce((sum, byte) => CRC[(sum ^ byte) & 255] ^ (sum >>> 8), ~0) >>> 0;
      const about = [
        [20, 2], [0x800, 2], [0, 2], [0, 2], [0x21, 2], // version, UTF-8, stored, 1 January 1980
        [crc, 4], [body.length, 4], [body.length, 4], [title.length, 2], [0, 2],
      ];
      members.push(bytes([0x04034b50, 4], ...about), title, body);
      places.push(bytes([0x02014b50, 4], [20, 2], ...about, [0, 8], [0, 2], [at, 4]), title);
      at += 30 + title.length + body.length;
    }
    const size = places.reduce((sum, part) => sum + part.length, 0);
    const n = files.length;
    return [...members, ...places,
            bytes([0x06054b50, 4], [0, 4], [n, 2], [n, 2], [size, 4], [at, 4], [0, 2])];
  }

  /** From {name: rows} to the members of an Excel workbook. */
  function workbook(sheets) {
    // Names of formats, of which nothing is fetched; in parts, since a page holds no address.
    const schemas = ["http:", "", "schemas.openxmlformats.org"].join("/");
    const main = `${schemas}/spreadsheetml/2006/main`;
    const links = `${schemas}/officeDocument/2006/relationships`;
    const office = "application/vnd.openxmlformats-";
    const part = `${office}officedocument.spreadsheetml`;
    const names = Object.keys(sheets);
    const related = (list) => `<Relationships xmlns="${schemas}/package/2006/relationships">`
      + list.map(([what, target], place) =>
        `<Relationship Id="r${place + 1}" Type="${links}/${what}" Target="${target}"/>`).join("")
      + "</Relationships>";
    const clean = (text) => escaped(text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g, "\ufffd"));
    const cell = (value) => typeof value === "number" ? `<c><v>${value}</v></c>`
      : `<c t="inlineStr"><is><t>${clean(String(value ?? ""))}</t></is></c>`;
    return [
      ["[Content_Types].xml", `<Types xmlns="${schemas}/package/2006/content-types">`
        + `<Default Extension="rels" ContentType="${office}package.relationships+xml"/>`
        + `<Override PartName="/workbook.xml" ContentType="${part}.sheet.main+xml"/>`
        + names.map((name) => `<Override PartName="/${name}.xml" `
          + `ContentType="${part}.worksheet+xml"/>`).join("") + "</Types>"],
      ["_rels/.rels", related([["officeDocument", "workbook.xml"]])],
      ["workbook.xml", `<workbook xmlns="${main}" xmlns:r="${links}"><sheets>`
        + names.map((name, place) =>
          `<sheet name="${name}" sheetId="${place + 1}" r:id="r${place + 1}"/>`).join("")
        + "</sheets></workbook>"],
      ["_rels/workbook.xml.rels", related(names.map((name) => ["worksheet", `${name}.xml`]))],
      ...names.map((name) => [`${name}.xml`, `<worksheet xmlns="${main}"><sheetData>`
        + sheets[name].map((row) => `<row>${row.map(cell).join("")}</row>`).join("")
        + "</sheetData></worksheet>"]),
    ].map(([name, text]) => [name, `<?xml version="1.0" encoding="UTF-8"?>\n${text}`]);
  }

  const csvOf = (rows) => rows.map((row) => row.map((value) => {
    const text = value == null ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }).join(",") + "\r\n").join("");

  function rowsOf(csv) {
    const rows = [[]];
    const value = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g;
    for (const [, quoted, plain, end] of csv.matchAll(value)) {
      rows.at(-1).push(quoted?.replaceAll('""', '"') ?? plain);
      if (end !== ",") rows.push([]);
    }
    return rows.filter((row) => row.length > 1);
  }

  return { exactInterval, judgeType, judgeRatio, framing, whole, plural, tenths, short, escaped, zip, workbook, csvOf, rowsOf };
})();
