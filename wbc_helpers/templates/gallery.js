/* The gallery: white cells of counted photographs to look at, to correct and to count again.

It stands in the pages of `wbc count`, which bring their cells as the JSON block `#cells`, and in the
stand-alone page, which reads photographs itself. Both say `Gallery.open(element, data)`, and
`gallery.add(more)` for cells that come later; `more` has `photographs` and `cells` alone. The data:

  key, result     texts; corrections are kept in this browser under the one, the sample's name under
                  the other, which is to change with every photograph
  title           of the slide, for a person
  drawn           whether the cells were drawn by a program
  types           [{name, color, marker, low, high}]: the types in the order of the keys 1, 2, …;
                  `marker` is SVG of about a unit's radius, low to high the adult range in per cent;
                  the last is `other`, with low and high null
  kinds           [{name, title, plural, color, marker}]: RBC, WBC, Platelets
  confidence      of the intervals, 0.95
  least           cells of which a differential is to consist before ranges are spoken of
  foreign         {cells, share, text}: of so many white cells and more, below this share of answers,
                  no types are counted, and the text stands in their place
  photographs     [{file, digest, width, height, red_cell, fit, named, picture, page}]: name; a text
                  that changes when the boxes do; size in pixels; the red cells' width, or null;
                  whether cells may be counted, and white ones named; the address of a picture of it
                  (data: or blob:), of any size, or null; the address of its own page, or null
  cells           [{photograph, kind, box, score, counted, cut, type, probability, answered,
                  probabilities}]: place in `photographs`; "RBC", "WBC" or "Platelets"; [x_min,
                  y_min, x_max, y_max] in pixels of the photograph; 0–1; whether the score suffices;
                  whether the frame cuts it; of white cells the most probable type, its probability,
                  and whether that may be taken for an answer, else null; {type: probability} if known
  totals          {types: {name: n}, unanswered: n, kinds: {name: n}} of all photographs, those of
                  other pages, too; without it, of `cells`
  others          {file: digest} of the photographs on other pages; without it, there are none

A correction is an event; the last one of a cell holds, and undoing takes the last one back. */
"use strict";

const Gallery = (() => {
  const DELETED = "none";
  const CSV = ["file", "kind", "x_min", "y_min", "x_max", "y_max", "machine", "probability",
               "person", "reader", "time"];
  const RED_CELL = 7.5; // micrometres, for the scale bar

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

  // Building the page: text is always text, and only markers of our own are read as SVG

  function make(tag, about = {}, ...inside) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(about)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, value);
    }
    made.append(...inside.flat(9).filter((part) => part != null));
    return made;
  }
  const escaped = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
  function symbol(look) {
    const shown = make("span", { class: "symbol", "aria-hidden": "true" });
    const color = look.color === "#000000" ? "currentColor" : look.color;
    shown.innerHTML = `<svg viewBox="-1.5 -1.5 3 3"><g fill="${color}">${look.marker}</g></svg>`;
    return shown;
  }
  const percent = (share) => share == null ? "" : `${Math.round(100 * share)}\u202f%`;
  const plural = (n, one, more) => `${n.toLocaleString("en")} ${n === 1 ? one : more}`;

  function save(name, type, ...parts) {
    const link = make("a", { download: name, href: URL.createObjectURL(new Blob(parts, { type })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }
  const csvOf = (rows) => rows.map((row) => row.map((value) => {
    const text = value == null ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }).join(",") + "\r\n").join("");

  // What is kept in this browser, if it lets us

  function recall(key) {
    try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; }
  }
  function keep(key, value) {
    try { localStorage.setItem(key, JSON.stringify(value)); return true; } catch { return false; }
  }

  // Files in one: a ZIP whose members are stored as they are, and a workbook made of it

  const CRC = Uint32Array.from({ length: 256 }, (_, sign) => {
    for (let bit = 0; bit < 8; bit++) sign = sign & 1 ? 0xedb88320 ^ (sign >>> 1) : sign >>> 1;
    return sign;
  });
  function zip(files) {
    const members = [], places = [];
    let at = 0;
    for (const [name, text] of files) {
      const [title, body] = [name, text].map((part) => new TextEncoder().encode(part));
      const crc = ~body.reduce((sum, byte) => CRC[(sum ^ byte) & 255] ^ (sum >>> 8), ~0) >>> 0;
      // Version, flag of UTF-8 names, stored, 1 January 1980, checksum and sizes.
      const about = [[20, 2], [0x800, 2], [0, 2], [0, 2], [0x21, 2], [crc, 4], [body.length, 4], [body.length, 4], [title.length, 2], [0, 2]];
      members.push(bytes([0x04034b50, 4], ...about), title, body);
      places.push(bytes([0x02014b50, 4], [20, 2], ...about, [0, 2], [0, 2], [0, 2], [0, 4], [at, 4]), title);
      at += 30 + title.length + body.length;
    }
    const size = places.reduce((sum, part) => sum + part.length, 0);
    return new Blob([...members, ...places, bytes([0x06054b50, 4], [0, 4], [files.length, 2], [files.length, 2], [size, 4], [at, 4], [0, 2])]);
  }
  function bytes(...numbers) {
    return Uint8Array.from(numbers.flatMap(([number, n]) => Array.from({ length: n }, (_, place) => (number >>> (8 * place)) & 255)));
  }
  function workbook(sheets) {
    // Names of formats, which nothing is fetched from; put together, since a page holds no address.
    const schemas = ["http:", "", "schemas.openxmlformats.org"].join("/");
    const main = `${schemas}/spreadsheetml/2006/main`, links = `${schemas}/officeDocument/2006/relationships`;
    const kind = "application/vnd.openxmlformats-officedocument.spreadsheetml", names = Object.keys(sheets);
    const relations = (list) => `<Relationships xmlns="${schemas}/package/2006/relationships">`
      + list.map(([what, target], place) => `<Relationship Id="r${place + 1}" Type="${links}/${what}" Target="${target}"/>`).join("") + "</Relationships>";
    const cell = (value) => typeof value === "number" ? `<c><v>${value}</v></c>`
      // XML has no place for control characters.
      : `<c t="inlineStr"><is><t>${escaped(String(value ?? "").replace(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g, "\ufffd"))}</t></is></c>`;
    return [
      ["[Content_Types].xml", `<Types xmlns="${schemas}/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>`
        + `<Override PartName="/workbook.xml" ContentType="${kind}.sheet.main+xml"/>`
        + names.map((name) => `<Override PartName="/${name}.xml" ContentType="${kind}.worksheet+xml"/>`).join("") + "</Types>"],
      ["_rels/.rels", relations([["officeDocument", "workbook.xml"]])],
      ["workbook.xml", `<workbook xmlns="${main}" xmlns:r="${links}"><sheets>` + names.map((name, place) =>
        `<sheet name="${name}" sheetId="${place + 1}" r:id="r${place + 1}"/>`).join("") + "</sheets></workbook>"],
      ["_rels/workbook.xml.rels", relations(names.map((name) => ["worksheet", `${name}.xml`]))],
      ...names.map((name) => [`${name}.xml`, `<worksheet xmlns="${main}"><sheetData>`
        + sheets[name].map((row) => `<row>${row.map(cell).join("")}</row>`).join("") + "</sheetData></worksheet>"]),
    ].map(([name, text]) => [name, `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n${text}`]);
  }

  function open(root, data) {
    const types = data.types, answers = types.map((type) => type.name);
    const looks = Object.fromEntries([...types, ...data.kinds].map((look) => [look.name, look]));
    const photographs = [], cells = new Map(), latest = new Map();
    const kept = recall(data.key);
    const events = kept.events ?? [];
    let chosen = null; // the cell that keys and buttons mean
    let isKept = true;

    // Cells and what was said of them

    const idOf = (photograph, kind, box) => [photograph.file, photograph.digest, kind, ...box].join("|");
    const person = (cell) => latest.get(cell.id)?.person;
    const isDeleted = (cell) => person(cell) === DELETED;
    /** The type that is counted, null where nobody answered. */
    const nowType = (cell) => person(cell) ? (answers.includes(person(cell)) ? person(cell) : null)
      : person(cell) == null && cell.answered ? cell.type : null;
    /** Where a cell stands in the gallery. */
    const groupOf = (cell) => isDeleted(cell) ? "deleted"
      : nowType(cell) ?? (cell.counted || cell.drawn ? "no answer" : "not counted");

    function add(more) {
      const first = photographs.length;
      more.photographs.forEach((about) => photographs.push({ ...about, cells: [] }));
      const fresh = photographs.slice(first);
      for (const about of more.cells) admit({ ...about }, photographs[first + about.photograph]);
      const ours = new Map(fresh.map((photograph) => [photograph.file + "|" + photograph.digest, photograph]));
      for (const event of events) {
        const photograph = ours.get(event.file + "|" + event.digest);
        if (photograph && event.drawn && !cells.has(event.id)) admit(drawnCell(event), photograph);
        if (photograph || data.others?.[event.file] === event.digest) latest.set(event.id, event);
      }
      arrange();
      fresh.forEach(paint);
    }
    function admit(cell, photograph) {
      cell.photograph = photograph;
      cell.id = idOf(photograph, cell.kind, cell.box);
      photograph.cells.push(cell);
      cells.set(cell.id, cell);
      if (cell.kind === "WBC") cell.tile = tileOf(cell);
    }
    const drawnCell = ({ kind, box }) => ({ kind, box, drawn: true, score: null, counted: false,
      cut: false, type: null, probability: null, answered: false });

    function say(cell, what) {
      const { photograph } = cell;
      const event = {
        id: cell.id, file: photograph.file, digest: photograph.digest, kind: cell.kind, box: cell.box,
        machine: cell.drawn ? "" : cell.type ?? (cell.kind === "WBC" ? "" : cell.kind),
        probability: cell.probability ?? cell.score, drawn: Boolean(cell.drawn), person: what,
        // What the machine's totals hold of it.
        kindCounted: Boolean(cell.counted && photograph.fit),
        typeCounted: !cell.counted || cell.kind !== "WBC" || !photograph.named ? null
          : cell.answered ? cell.type : "unanswered",
        reader: readerField.value.trim(), time: new Date().toISOString(),
      };
      events.push(event);
      latest.set(cell.id, event);
      changed(cell, said(cell));
    }
    function undo() {
      const event = events.pop();
      if (!event) return announce("There is nothing to undo.");
      const before = events.findLast((earlier) => earlier.id === event.id);
      if (before) latest.set(event.id, before); else latest.delete(event.id);
      const cell = cells.get(event.id);
      if (cell?.drawn && !before) {
        cell.tile?.remove();
        cells.delete(cell.id);
        cell.photograph.cells = cell.photograph.cells.filter((other) => other !== cell);
        if (chosen === cell) chosen = null;
        changed(null, "The drawn box is gone.");
      } else if (cell) {
        choose(cell);
        changed(cell, `Taken back: ${said(cell)}`);
        if (!field.open) cell.tile?.focus();
      } else changed(null, `Taken back, of ${event.file}.`);
    }
    function changed(cell, words) {
      isKept = keep(data.key, { events, reader: readerField.value });
      if (cell?.tile) place(cell);
      count();
      if (field.open) drawField();
      announce(words);
    }

    function said(cell) {
      const now = isDeleted(cell) ? "deleted" : nowType(cell)
        ?? (cell.kind === "WBC" ? (cell.counted || cell.drawn ? "no answer" : "not counted") : looks[cell.kind].title);
      const machine = cell.drawn ? "drawn by hand"
        : cell.type ? `${cell.answered ? "network" : "network, unsure"}: ${cell.type} ${percent(cell.probability)}`
        : `network: ${looks[cell.kind].title} ${percent(cell.score)}`;
      return `${now}; ${machine}${cell.cut ? "; cut by the frame" : ""}; ${cell.photograph.file}`;
    }
    const isTouched = (cell) => person(cell) != null;
    const isConfirmed = (cell) => isTouched(cell) && !cell.drawn && person(cell) === cell.type && cell.answered;

    // Tiles

    const SIDE = 144; // pixels of a tile's own picture
    function tileOf(cell) {
      return make("div", { role: "option", tabindex: "-1", class: "tile", click: () => pick(cell),
                           dblclick: () => showField(cell), focus: () => choose(cell) },
        make("canvas", { width: SIDE, height: SIDE, "aria-hidden": "true" }),
        make("span", { class: "now" }), make("span", { class: "was" }));
    }
    function relabel(cell) {
      const { tile } = cell, now = groupOf(cell);
      const look = looks[now] ?? looks.WBC;
      tile.setAttribute("aria-label", said(cell) + (isConfirmed(cell) ? "; confirmed" : ""));
      tile.classList.toggle("touched", isTouched(cell));
      tile.querySelector(".now").replaceChildren(symbol(look),
        isTouched(cell) ? (isConfirmed(cell) ? "✓ " : "✎ ") + now : percent(cell.probability ?? cell.score) || "drawn");
      tile.querySelector(".was").textContent = !isTouched(cell) ? (cell.answered || !cell.type ? "" : `${cell.type}?`)
        : cell.drawn ? "drawn by hand" : `network: ${cell.type ?? "no type"} ${percent(cell.probability)}`;
    }
    /** Draws all cells of one photograph, so that each picture is decoded once. */
    async function paint(photograph) {
      const white = photograph.cells.filter((cell) => cell.tile);
      if (!white.length || !photograph.picture) return;
      photograph.image ??= Object.assign(new Image(), { src: photograph.picture });
      try { await photograph.image.decode(); } catch { return; }
      const zoom = photograph.image.naturalWidth / photograph.width;
      for (const { box, tile } of white) {
        const side = Math.max(box[2] - box[0], box[3] - box[1]) * 1.3;
        const [x, y] = [(box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2];
        const paper = tile.querySelector("canvas").getContext("2d");
        paper.imageSmoothingQuality = "high";
        paper.drawImage(photograph.image, x * zoom, y * zoom, side * zoom, side * zoom, 0, 0, SIDE, SIDE);
      }
    }

    // Groups, sorted and filtered

    const GROUPS = ["no answer", ...answers, "not counted", "deleted"];
    const groups = new Map(GROUPS.map((name) => [name, {
      grid: make("div", { role: "group", class: "tiles", "aria-label": name }),
      number: make("span", { class: "count" }),
    }]));
    const ORDERS = {
      "most unsure first": (cell) => cell.probability ?? cell.score ?? -1,
      "surest first": (cell) => -(cell.probability ?? cell.score ?? -1),
      "by photograph": (cell) => photographs.indexOf(cell.photograph) * 1e6 + cell.box[0],
    };
    const rank = (cell) => ORDERS[orderField.value](cell);
    const isWanted = (cell) => 100 * (cell.probability ?? cell.score ?? 0) <= Number(sureField.value)
      && (typeField.value === "all" || groupOf(cell) === typeField.value)
      && !(newField.checked && isTouched(cell) && cell !== chosen);

    function place(cell) {
      const { grid } = groups.get(groupOf(cell));
      const hadFocus = document.activeElement === cell.tile;
      const after = hadFocus ? neighbour(cell, 1) ?? neighbour(cell, -1) : null;
      relabel(cell);
      cell.tile.cell = cell;
      cell.tile.hidden = !isWanted(cell);
      const before = [...grid.children].find((tile) => tile !== cell.tile && rank(tile.cell) > rank(cell));
      if (cell.tile.parentNode !== grid || cell.tile.nextSibling !== (before ?? null)) grid.insertBefore(cell.tile, before ?? null);
      if (hadFocus) (after ?? cell.tile).focus();
      number();
    }
    function arrange() {
      const white = [...cells.values()].filter((cell) => cell.tile);
      white.sort((one, other) => rank(one) - rank(other));
      for (const { grid } of groups.values()) grid.replaceChildren();
      for (const cell of white) {
        cell.tile.cell = cell;
        relabel(cell);
        cell.tile.hidden = !isWanted(cell);
        groups.get(groupOf(cell)).grid.append(cell.tile);
      }
      if (!chosen || chosen.tile?.hidden) choose(visible()[0]?.cell ?? null);
      number();
      count();
    }
    function number() {
      for (const { grid, number: shown } of groups.values()) {
        const n = [...grid.children].filter((tile) => !tile.hidden).length;
        grid.parentNode.hidden = !n;
        shown.textContent = ` ${n}`;
      }
    }
    const visible = () => [...list.querySelectorAll(".tile:not([hidden])")];
    const neighbour = (cell, step) => {
      const tiles = visible();
      return tiles[tiles.indexOf(cell?.tile) + step];
    };
    function vertical(tile, step) {
      const { left, top } = tile.getBoundingClientRect();
      const beyond = visible().map((other) => [other, other.getBoundingClientRect()])
        .filter(([, area]) => step * (area.top - top) > 2);
      if (!beyond.length) return null;
      const line = beyond[step > 0 ? 0 : beyond.length - 1][1].top;
      return beyond.filter(([, area]) => Math.abs(area.top - line) < 2)
        .sort(([, one], [, other]) => Math.abs(one.left - left) - Math.abs(other.left - left))[0][0];
    }
    function choose(cell) {
      chosen?.tile?.setAttribute("tabindex", "-1");
      chosen?.tile?.removeAttribute("aria-selected");
      chosen = cell;
      chosen?.tile?.setAttribute("tabindex", "0");
      chosen?.tile?.setAttribute("aria-selected", "true");
      for (const bar of bars) bar.querySelector(".of").textContent = cell ? said(cell) : "No cell is chosen.";
    }
    function pick(cell) { choose(cell); cell.tile.focus({ preventScroll: true }); }

    // The count: the machine's totals, and what the corrections change in them

    function totals() {
      const base = data.totals ?? { types: {}, kinds: {}, unanswered: 0 };
      if (!data.totals) for (const cell of cells.values()) {
        if (!cell.counted || !cell.photograph.fit) continue;
        base.kinds[cell.kind] = (base.kinds[cell.kind] ?? 0) + 1;
        if (cell.kind !== "WBC" || !cell.photograph.named) continue;
        if (cell.answered) base.types[cell.type] = (base.types[cell.type] ?? 0) + 1;
        else base.unanswered += 1;
      }
      const start = (looks, counts) => Object.fromEntries(looks.map(({ name }) => [name, counts[name] ?? 0]));
      const machine = { types: start(types, base.types), kinds: start(data.kinds, base.kinds), unanswered: base.unanswered };
      const now = { types: { ...machine.types }, kinds: { ...machine.kinds }, unanswered: base.unanswered };
      for (const event of latest.values()) {
        const remains = event.person !== DELETED;
        now.kinds[event.kind] += remains - event.kindCounted;
        if (event.kind !== "WBC") continue;
        if (event.typeCounted === "unanswered") now.unanswered -= 1;
        else if (event.typeCounted) now.types[event.typeCounted] -= 1;
        if (remains && answers.includes(event.person)) now.types[event.person] += 1;
        else if (remains) now.unanswered += 1;
      }
      const five = types.filter((type) => type.low != null);
      const n = five.reduce((sum, { name }) => sum + now.types[name], 0);
      const nNamed = answers.reduce((sum, name) => sum + now.types[name], 0);
      const isForeign = nNamed + now.unanswered >= data.foreign.cells
        && nNamed < data.foreign.share * (nNamed + now.unanswered);
      const rows = five.map(({ name, low, high }) => {
        const [least, most] = exactInterval(now.types[name], n, data.confidence).map((share) => 100 * share);
        const verdict = n < data.least ? "" : most < low ? "below" : least > high ? "above"
          : least >= low && most <= high ? "within" : "unclear";
        return { name, machine: machine.types[name], now: now.types[name], low, high, least, most, verdict,
                 percent: n ? 100 * now.types[name] / n : null };
      });
      return { machine, now, rows, n, isForeign };
    }

    function count() {
      const { machine, now, rows, n, isForeign } = totals();
      const head = (...names) => make("thead", {}, make("tr", {}, names.map((name, place) =>
        make("th", { scope: "col", class: place && "number" }, name))));
      const line = (look, ...values) => make("tr", {}, make("th", { scope: "row" }, look.marker && symbol(look), ` ${look.title ?? look.name}`),
        values.map((value) => make("td", { class: "number nowrap" }, value)));
      const whole = (number) => number.toLocaleString("en");
      const shares = make("table", {}, make("caption", {}, `Differential of ${plural(n, "white cell", "white cells")}`),
        head("Type", "Network", "Now", "Per cent", `${100 * data.confidence} % interval`, "Adult range", "Beside it"),
        make("tbody", {}, rows.map((row) => line(looks[row.name], whole(row.machine), whole(row.now),
          n ? row.percent.toFixed(1) : "–", `${row.least.toFixed(1)} – ${row.most.toFixed(1)}`,
          `${row.low} – ${row.high}`, row.verdict || "–"))));
      const kinds = make("table", {}, make("caption", {}, "All cells"), head("Kind", "Network", "Now"), make("tbody", {},
        data.kinds.map((kind) => line({ ...kind, title: kind.plural }, whole(machine.kinds[kind.name]), whole(now.kinds[kind.name]))),
        line({ title: "white cells without an answer" }, whole(machine.unanswered), whole(now.unanswered)),
        line({ title: "other, none of the five types" }, "–", whole(now.types[answers.at(-1)]))));
      table.replaceChildren(isForeign ? make("p", { role: "note" }, make("strong", {}, data.foreign.text)) : shares, kinds);
      const said = [...latest.values()];
      const nDeleted = said.filter((event) => event.person === DELETED).length;
      const nDrawn = said.filter((event) => event.drawn && event.person !== DELETED).length;
      const nSame = said.filter((event) => !event.drawn && event.person === event.machine).length;
      summary.textContent = said.length ? `Looked at by a person: ${whole(said.length)} (${whole(nSame)} confirmed, `
        + `${whole(said.length - nSame - nDeleted - nDrawn)} changed, ${whole(nDrawn)} drawn, ${whole(nDeleted)} deleted).`
        + (isKept ? " Kept in this browser." : " This browser keeps nothing: download the corrections before you leave.")
        : "Nobody has looked at these cells yet: all answers are the network's.";
      corrected.hidden = !said.length;
      corrected.replaceChildren(make("caption", {}, "What a person said"), head("Photograph", "Place", "Network", "Person", "Reader", "Time"),
        make("tbody", {}, said.map((event) => make("tr", {}, make("th", { scope: "row" }, event.file),
          [`${Math.round(event.box[0])}, ${Math.round(event.box[1])}`,
           event.drawn ? "– (drawn)" : `${event.machine || "not counted"} ${percent(event.probability)}`,
           event.person === DELETED ? "deleted" : event.person || "no type", event.reader, event.time.slice(0, 16).replace("T", " ")]
            .map((value) => make("td", {}, value))))));
    }

    // One photograph, with the boxes of its cells

    let view = null; // {photograph, x, y, width}: what of it is in sight, in its pixels
    let isDrawing = false;
    const pointers = new Map();
    let gesture = null;

    function showField(cell) {
      if (!cell) return;
      choose(cell);
      const { photograph, box } = cell;
      if (view?.photograph !== photograph) {
        stage.querySelector("svg")?.remove();
        stage.insertAdjacentHTML("afterbegin", `<svg aria-hidden="true"><image width="${photograph.width}" height="${photograph.height}" preserveAspectRatio="none"/><g></g><rect class="rubber" hidden/></svg>`);
        if (photograph.picture) stage.querySelector("image").setAttribute("href", photograph.picture);
      }
      if (!field.open) field.showModal();
      const width = Math.min(photograph.width, 5 * Math.max(box[2] - box[0], box[3] - box[1]));
      view = { photograph, width };
      moveTo((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, width);
      fieldTitle.textContent = photograph.file;
      stage.focus({ preventScroll: true });
    }
    const sizeOf = () => { const { photograph } = view; return [photograph.width, photograph.height]; };
    function moveTo(x, y, width) {
      const [most, tall] = sizeOf();
      view.width = Math.max(Math.min(width, most), most / 60);
      const height = view.width * tall / most;
      view.x = Math.min(Math.max(x - view.width / 2, 0), most - view.width);
      view.y = Math.min(Math.max(y - height / 2, 0), tall - height);
      stage.querySelector("svg").setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${height}`);
      stage.style.aspectRatio = `${most} / ${tall}`;
      stage.style.setProperty("--ratio", most / tall);
      drawField();
    }
    const middle = () => [view.x + view.width / 2, view.y + view.width * sizeOf()[1] / sizeOf()[0] / 2];
    const zoomBy = (times, [x, y] = middle()) => {
      const [midX, midY] = middle(), width = Math.max(Math.min(view.width / times, sizeOf()[0]), sizeOf()[0] / 60);
      const share = width / view.width; // the place under the pointer remains there
      moveTo(x + (midX - x) * share, y + (midY - y) * share, width);
    };
    function drawField() {
      const { photograph } = view, unit = view.width / (stage.clientWidth || 800) * 6;
      const shown = photograph.cells.filter((cell) => !isDeleted(cell) && (cell.kind === "WBC" || othersField.checked) || cell === chosen);
      stage.querySelector("g").innerHTML = shown.map((cell) => {
        const [x, y, right, lower] = cell.box, look = looks[nowType(cell)] ?? looks[cell.kind];
        const style = `class="${cell === chosen ? "chosen" : ""}${isDeleted(cell) ? " deleted" : ""}" data-place="${photograph.cells.indexOf(cell)}"`;
        const rect = (name) => `<rect class="${name}" x="${x}" y="${y}" width="${right - x}" height="${lower - y}"/>`;
        // Above the box, or below it: never on the cell.
        const at = y > 3 * unit ? y - 1.6 * unit : lower + 1.6 * unit;
        return `<g ${style} stroke="${look.color}" fill="${look.color}"><title>${escaped(said(cell))}</title>${rect("halo")}${rect("box")}`
          + (cell.kind === "WBC" ? `<g class="marker" transform="translate(${x + unit} ${at}) scale(${unit})">${look.marker}</g>` : "") + "</g>";
      }).join("");
      const micrometre = photograph.red_cell && photograph.red_cell / RED_CELL * stage.clientWidth / view.width;
      const length = [100, 50, 20, 10, 5, 2].find((micrometres) => micrometres * micrometre < 0.3 * stage.clientWidth) ?? 1;
      bar.hidden = !micrometre;
      if (micrometre) bar.style.width = `${length * micrometre}px`;
      bar.textContent = `${length} µm`;
    }
    function pointOf(event) {
      const area = stage.getBoundingClientRect();
      return [view.x + (event.clientX - area.left) / area.width * view.width,
              view.y + (event.clientY - area.top) / area.width * view.width];
    }
    function pressed(event) {
      stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      gesture = { start: pointOf(event), middle: middle(), moved: false, target: event.target.closest("[data-place]") };
    }
    function moved(event) {
      if (!pointers.has(event.pointerId) || !gesture) return;
      const spread = () => { const [one, other] = [...pointers.values()]; return other && Math.hypot(one[0] - other[0], one[1] - other[1]); };
      const before = spread(), [lastX, lastY] = pointers.get(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (before) return void (gesture.moved = true, zoomBy(spread() / before));
      const [x, y] = pointOf(event);
      gesture.moved ||= Math.abs(x - gesture.start[0]) + Math.abs(y - gesture.start[1]) > view.width / 150;
      if (!gesture.moved) return;
      if (isDrawing) return rubber(boxBetween(gesture.start, [x, y]));
      const scale = view.width / stage.clientWidth, [midX, midY] = middle();
      moveTo(midX - (event.clientX - lastX) * scale, midY - (event.clientY - lastY) * scale, view.width);
    }
    function released(event) {
      pointers.delete(event.pointerId);
      if (!gesture || pointers.size) return;
      const { start, moved: hasMoved, target } = gesture;
      gesture = null;
      rubber(null);
      if (isDrawing && hasMoved) drawBox(boxBetween(start, pointOf(event)));
      else if (!hasMoved && target) { choose(view.photograph.cells[target.dataset.place]); drawField(); }
    }
    function rubber(box) {
      const shown = stage.querySelector(".rubber");
      shown.toggleAttribute("hidden", !box);
      if (box) for (const [name, value] of Object.entries({ x: box[0], y: box[1], width: box[2] - box[0], height: box[3] - box[1] })) shown.setAttribute(name, value);
    }
    function boxBetween([x, y], [otherX, otherY]) {
      const [width, height] = sizeOf(), within = (value, most) => Math.round(10 * Math.min(Math.max(value, 0), most)) / 10;
      return [within(Math.min(x, otherX), width), within(Math.min(y, otherY), height), within(Math.max(x, otherX), width), within(Math.max(y, otherY), height)];
    }
    function drawBox(box) {
      if (Math.min(box[2] - box[0], box[3] - box[1]) < 3) return;
      const { photograph } = view, kind = kindField.value;
      const cell = drawnCell({ kind, box });
      if (cells.has(idOf(photograph, kind, box))) return;
      admit(cell, photograph);
      draw(false);
      choose(cell);
      say(cell, kind === "WBC" ? "" : kind);
      paint(photograph);
    }
    /** For those who draw with keys: a box of a cell's size in the middle of the view. */
    function drawInMiddle() {
      const [x, y] = middle(), { photograph } = view;
      const half = (photograph.red_cell ?? photograph.width / 12) * (kindField.value === "WBC" ? 0.9 : 0.5);
      drawBox(boxBetween([x - half, y - half], [x + half, y + half]));
    }
    function draw(on) {
      isDrawing = on;
      drawButton.setAttribute("aria-pressed", on);
      stage.classList.toggle("drawing", on);
    }

    // What can be done to the chosen cell, by buttons and by keys

    const name = (type) => chosen && (chosen.kind === "WBC" ? say(chosen, type) : announce("Types are for white cells."));
    const confirm = () => chosen && (chosen.kind !== "WBC" ? say(chosen, chosen.kind) : nowType(chosen) ?? chosen.type
      ? say(chosen, nowType(chosen) ?? chosen.type) : announce("There is no answer to confirm: choose a type."));
    const discard = () => chosen && say(chosen, DELETED);
    const button = (label, key, click, about = {}) => make("button", { type: "button", click, "aria-keyshortcuts": key, ...about },
      label, make("kbd", { "aria-hidden": "true" }, key));
    const bars = [0, 1].map(() => make("div", { class: "answers", role: "toolbar", "aria-label": "The chosen cell is" },
      make("p", { class: "of" }), types.map((type, place) => button([symbol(type), type.name], String(place + 1), () => name(type.name))),
      button("confirm", "C", confirm), button("delete", "Delete", discard), button("undo", "U", undo)));
    bars[0].append(button("in its field", "Z", () => showField(chosen)));

    function step(by) {
      const next = neighbour(chosen, by)?.cell;
      if (next && field.open) showField(next); else if (next) pick(next);
      next?.tile.scrollIntoView({ block: "nearest" });
    }
    function onKey(event) {
      if (event.target.matches("input, select, textarea") || event.altKey) return;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      if ((event.ctrlKey || event.metaKey) && key !== "z") return;
      const onButton = event.target.matches("button, a, summary");
      const inGrid = event.target.matches(".tile");
      const digit = types[Number(key) - 1];
      const to = (tile) => tile && (choose(tile.cell), tile.focus());
      const action = digit && /^[1-9]$/.test(key) ? () => name(digit.name)
        : event.ctrlKey || event.metaKey ? undo
        : { u: undo, c: confirm, Delete: discard, Backspace: discard, ArrowLeft: () => step(-1), ArrowRight: () => step(1) }[key]
        ?? (key === "Enter" && !onButton ? confirm : null)
        ?? (!field.open && (key === "z" || key === " " && inGrid) ? () => showField(chosen) : null)
        ?? (inGrid ? { ArrowUp: () => to(vertical(chosen.tile, -1)), ArrowDown: () => to(vertical(chosen.tile, 1)),
                       Home: () => to(visible()[0]), End: () => to(visible().at(-1)) }[key] : null)
        ?? (field.open ? { "+": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => zoomBy(0), d: () => draw(!isDrawing), b: drawInMiddle,
                           ArrowUp: () => pan(0, -1), ArrowDown: () => pan(0, 1) }[key] : null);
      if (!action) return;
      event.preventDefault();
      event.stopPropagation();
      action();
    }
    const pan = (right, down) => { const [x, y] = middle(); moveTo(x + right * view.width / 5, y + down * view.width / 5, view.width); };

    // Files to take away

    const rowOf = (event) => [event.file, event.kind, ...event.box, event.machine, event.probability, event.person, event.reader, event.time];
    const corrections = () => [CSV, ...[...latest.values()].map(rowOf)];
    const remaining = () => [...cells.values()].filter((cell) => !isDeleted(cell) && (cell.counted || isTouched(cell)));
    function cellRows() {
      return [[...CSV.slice(0, 8), "answered", "cut", "now", ...CSV.slice(8)], ...remaining().map((cell) => {
        const event = latest.get(cell.id);
        return [cell.photograph.file, cell.kind, ...cell.box, cell.type ?? "", cell.probability ?? cell.score, cell.answered ?? "", Boolean(cell.cut),
                nowType(cell) ?? "", event?.person ?? "", event?.reader ?? "", event?.time ?? ""];
      })];
    }
    function countRows() {
      const { machine, now, rows, n, isForeign } = totals();
      return [["sample", sampleField.value], ["reader", readerField.value], ["time", new Date().toISOString()], ["white cells named", n],
        ...(isForeign ? [[data.foreign.text]] : [["type", "network", "now", "per cent", "low", "high", "adult low", "adult high"],
          ...rows.map((row) => [row.name, row.machine, row.now, row.percent, row.least, row.most, row.low, row.high])]),
        ["kind", "network", "now"], ...data.kinds.map((kind) => [kind.name, machine.kinds[kind.name], now.kinds[kind.name]]),
        ["white cells without an answer", machine.unanswered, now.unanswered]];
    }
    const labelOf = (cell) => cell.kind === "WBC" ? nowType(cell) ?? "WBC" : cell.kind;
    function coco() {
      const names = [...data.kinds.map((kind) => kind.name), ...answers];
      return { images: photographs.map((about, id) => ({ id, file_name: about.file, width: about.width, height: about.height })),
        categories: names.map((name, id) => ({ id: id + 1, name })),
        annotations: remaining().map((cell, id) => { const [x, y, right, lower] = cell.box;
          return { id: id + 1, image_id: photographs.indexOf(cell.photograph), category_id: names.indexOf(labelOf(cell)) + 1, iscrowd: 0,
                   bbox: [x, y, right - x, lower - y], area: (right - x) * (lower - y) }; }) };
    }
    const voc = () => photographs.map((about) => [`${about.file.replace(/\.[^./]*$/, "")}.xml`, `<annotation><filename>${escaped(about.file)}</filename>`
      + `<size><width>${about.width}</width><height>${about.height}</height><depth>3</depth></size>`
      + remaining().filter((cell) => cell.photograph === about).map((cell) => `<object><name>${labelOf(cell)}</name><truncated>${Number(Boolean(cell.cut))}</truncated><bndbox>`
        + ["xmin", "ymin", "xmax", "ymax"].map((edge, place) => `<${edge}>${cell.box[place]}</${edge}>`).join("") + "</bndbox></object>").join("\n") + "</annotation>\n"]);
    const EXPORTS = {
      "corrections.csv": ["text/csv", () => [csvOf(corrections())]],
      "cells-now.csv": ["text/csv", () => [csvOf(cellRows())]],
      "count.xlsx": ["application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        () => [zip(workbook({ count: countRows(), cells: cellRows(), corrections: corrections() }))]],
      "boxes-coco.json": ["application/json", () => [JSON.stringify(coco())]],
      "boxes-voc.zip": ["application/zip", () => [zip(voc())]],
    };

    // The page

    const id = (what) => `gallery-${what}`;
    const labelled = (text, input) => make("label", {}, make("span", {}, text), input);
    const select = (options, change) => make("select", { change }, options.map((name) => make("option", { value: name }, name)));
    const status = make("p", { role: "status", class: "status" });
    const announce = (words) => { status.textContent = words; };
    const typeField = select(["all", ...GROUPS], arrange), orderField = select(Object.keys(ORDERS), arrange);
    const sureField = make("input", { type: "range", min: 30, max: 100, value: 100, input: () => { sureShown.textContent = `${sureField.value} %`; arrange(); } });
    const sureShown = make("output", {}, "100 %");
    const newField = make("input", { type: "checkbox", change: arrange });
    const readerField = make("input", { type: "text", autocomplete: "name", value: kept.reader ?? "", change: () => changed(null, "") });
    const sampleField = make("input", { type: "text", value: recall(data.result).sample ?? data.title,
                                        change: () => keep(data.result, { sample: sampleField.value }) });
    const table = make("div", { class: "tallies" }), summary = make("p", { class: "note" }), corrected = make("table", { class: "corrected" });
    const list = make("div", { class: "groups" }, [...groups].map(([name, group]) => make("section", { hidden: true },
      make("h3", { id: id(name.replace(" ", "-")) }, looks[name] && symbol(looks[name]), ` ${name}`, group.number), group.grid)));
    const othersField = make("input", { type: "checkbox", change: () => drawField() });
    const kindField = select(["WBC", "RBC", "Platelets"]);
    const drawButton = button("draw a box", "D", () => draw(!isDrawing), { "aria-pressed": "false" });
    const bar = make("div", { class: "scale-bar" });
    const stage = make("div", { class: "stage", tabindex: "0", role: "application", pointerdown: pressed, pointermove: moved, pointerup: released, pointercancel: released,
      "aria-label": "The photograph. Left and right: next cell; plus and minus: zoom; B: a box in the middle",
      wheel: (event) => { event.preventDefault(); zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, pointOf(event)); } }, bar);
    const fieldTitle = make("h2", {});
    const field = make("dialog", { class: "field", "aria-label": "The cell in its field", keydown: onKey, close: () => { draw(false); chosen?.tile?.focus(); } },
      make("div", { class: "head" }, fieldTitle, button("close", "Esc", () => field.close())), make("div", { class: "around" }, stage),
      make("div", { class: "controls" }, button("closer", "+", () => zoomBy(1.5)), button("wider", "-", () => zoomBy(1 / 1.5)), button("whole field", "0", () => zoomBy(0)),
        button("back", "←", () => step(-1)), button("next", "→", () => step(1)), drawButton, labelled("of a", kindField), labelled("all kinds", othersField)), bars[1]);

    root.classList.add("gallery");
    root.replaceChildren(
      make("section", { class: "sheet" }, make("h2", { id: id("count") }, "The count"),
        make("div", { class: "controls who" }, labelled("Sample", sampleField), labelled("Reader", readerField)), table, summary,
        make("p", { class: "note" }, "Intervals are those of chance alone (Clopper and Pearson), without the network's mistakes. Ranges: B. J. Bain, Blood Cells, 5th ed. (2015). ",
          make("strong", {}, "Not for diagnosis.")),
        make("details", { class: "said" }, make("summary", {}, "What was corrected, and files"),
          make("div", { class: "controls" }, Object.entries(EXPORTS).map(([name, [type, parts]]) => make("button", { type: "button", click: () => save(name, type, ...parts()) }, name)),
            make("button", { type: "button", click: () => print() }, "print the sheet")), make("div", { class: "scroll", tabindex: "0" }, corrected)),
        make("p", { class: "signature" }, "Date, signature")),
      make("section", { class: "work", keydown: onKey }, make("h2", { id: id("cells") }, "White cells"),
        make("div", { class: "controls filters" }, labelled("Type", typeField), labelled("Order", orderField), labelled("At most", [sureField, sureShown].reduce((box, part) => (box.append(part), box), make("span"))),
          labelled("not looked at yet", newField)), list, bars[0]), status, field);
    root.querySelectorAll(".groups section").forEach((section) => {
      section.lastChild.setAttribute("role", "listbox");
      section.lastChild.removeAttribute("aria-label");
      section.lastChild.setAttribute("aria-labelledby", section.firstChild.id);
    });
    add(data);
    return { add };
  }

  return { open, exactInterval };
})();

if (document.getElementById("cells")) {
  Gallery.open(document.getElementById("gallery"), JSON.parse(document.getElementById("cells").textContent));
}
