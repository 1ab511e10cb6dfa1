/* What a gallery reckons and writes: exact intervals, CSV there and back, ZIP archives, workbooks.
Nothing here knows the page. */
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

  // Text, also in HTML and XML

  const whole = (number) => number.toLocaleString("en");
  const plural = (n, one, more) => `${whole(n)} ${n === 1 ? one : more}`;

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

  return { exactInterval, whole, plural, escaped, zip, workbook, csvOf, rowsOf };
})();
