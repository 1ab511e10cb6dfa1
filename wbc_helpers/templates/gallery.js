/* The gallery: white cells of counted photographs to look at, to correct and to count again.

It stands in the pages of `wbc count`, which bring their cells as the JSON block `#cells`, and in
the stand-alone page, which reads photographs itself. `Gallery.open(element, data)` fills an
element; `add({photographs, cells})` of what it returns adds what is read later. The data:

  key, result     texts; corrections are kept in this browser under the one, the sample's name under
                  the other, which is to change with every photograph
  title           of the slide, for a person
  drawn           whether the cells were drawn by a program
  laboratory      name of the one that taught the answers, or null
  types           [{name, color, marker, low, high, fewer, more}]: the types in the order of the
                  keys 1, 2, …; `marker` is SVG of about a unit's radius, low to high the adult
                  range in per cent, and what a share below or above it is called; the last is
                  `other`, whose four are null
  kinds           [{name, title, plural, color, marker}]: RBC, WBC, Platelets
  ratios          [{name, first, second, low, high, fewer, more}]: of two kinds, with the adult
                  range, and what lies below and above it, or null where nothing is to be remarked
  micrometres     that a red cell is taken to be wide, for the scale bar
  confidence      of the intervals, 0.95
  least           cells of which a differential is to consist before ranges are spoken of
  foreign         {cells, share, text}: of so many white cells and more, below this share of
                  answers, no types are counted, and the text stands in their place
  photographs     [{file, digest, width, height, red_cell, fit, named, picture, page}]: name; a text
                  that changes when the boxes do; size in pixels; the red cells' width, or null;
                  whether cells may be counted, and white ones named; the address of a picture of it
                  (data: or blob:), of any size, or null; the address of its own page, or null
  cells           [{photograph, kind, box, score, counted, type, probability, answered,
                  probabilities}]: place among the `photographs` that come with it; "RBC", "WBC" or
                  "Platelets"; [x_min, y_min, x_max, y_max] in pixels of the photograph; 0–1;
                  whether the score suffices; of white cells the most probable type, its
                  probability, whether that may be taken for an answer, and the probabilities of
                  all `types`; null or left out of others
  totals          {types: {name: n}, unanswered: n, kinds: {name: n}, framed, cut} of all
                  photographs, those of other pages, too; without it, of `cells`. `framed` are as
                  `kinds`, without the cells at the left and upper edge, `cut` those at any edge
  others          {file: {digest, width, height}} of the photographs on other pages; without it,
                  there are none

Beside the element, what a page marks with `data-count` is kept up to date, such as "kinds WBC",
"cut RBC" or "answered".

A correction is an event; the last one of a cell holds, and undoing takes the last one back.
`tables.js` has to stand before this. */
"use strict";

const Gallery = (() => {
  const { judgeType, judgeRatio, framing, whole, plural, tenths, short } = Tables;
  const { escaped, zip, workbook, csvOf, rowsOf } = Tables;
  const DELETED = "none", UNANSWERED = "unanswered";
  const BOX = ["x_min", "y_min", "x_max", "y_max"];
  const CORRECTIONS = [
    "file", "kind", ...BOX, "machine", "probability", "person", "reader", "time"];
  const SIDE = 144; // pixels of a tile's own picture

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
  function symbol(look) {
    const shown = make("span", { class: "symbol", "aria-hidden": "true" });
    const color = look.color === "#000000" ? "currentColor" : look.color;
    shown.innerHTML = `<svg viewBox="-1.5 -1.5 3 3"><g fill="${color}">${look.marker}</g></svg>`;
    return shown;
  }
  const percent = (share) => share == null ? "" : `${Math.round(100 * share)}\u202f%`;
  const clamp = (value, most) => Math.min(Math.max(value, 0), most);

  // What is kept in this browser, if it lets us

  function recall(key) {
    try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; }
  }
  function keep(key, value) {
    try { localStorage.setItem(key, JSON.stringify(value)); return true; } catch { return false; }
  }

  function save(name, type, parts) {
    const href = URL.createObjectURL(new Blob(parts, { type }));
    make("a", { download: name, href }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  }

  function open(root, data) {
    const types = data.types, answers = types.map((type) => type.name);
    const looks = Object.fromEntries([...types, ...data.kinds].map((look) => [look.name, look]));
    const photographs = [], cells = new Map();
    const { events = [], reader = "" } = recall(data.key);
    const latest = new Map(); // the event that holds, by the cell's id
    let chosen = null; // the cell that keys and buttons mean
    let isKept = true;

    // Cells and what was said of them

    const person = (cell) => latest.get(cell.id)?.person;
    const isTouched = (cell) => person(cell) != null;
    const isDeleted = (cell) => person(cell) === DELETED;
    const isConfirmed = (cell) => cell.answered && person(cell) === cell.type;
    const sureness = (cell) => cell.probability ?? cell.score;
    const kindOf = (cell) => looks[cell.kind].title;
    const typeNow = (cell) => isTouched(cell)
      ? (answers.includes(person(cell)) ? person(cell) : null)
      : cell.answered ? cell.type : null;
    const groupOf = (cell) => isDeleted(cell) ? "deleted"
      : typeNow(cell) ?? (cell.counted || cell.drawn ? "no answer" : "not counted");

    const guess = (type, share) => `${type} ${percent(share)}`;
    /** The most probable type beside the one that is named, and its probability. */
    const second = ({ type, probabilities }) => answers
      .map((name, place) => [name, probabilities?.[place] ?? 0])
      .reduce((best, other) => other[0] !== type && other[1] > best[1] ? other : best, ["", 0]);
    /** Only what `percent` does not write as nothing. */
    const orSecond = (cell) => second(cell)[1] < 0.005 ? "" : `or ${guess(...second(cell))}`;
    const guesses = (cell) => [guess(cell.type, cell.probability), orSecond(cell)]
      .filter(Boolean).join(", ");

    function inWords(cell) {
      const now = isDeleted(cell) || cell.kind === "WBC" ? groupOf(cell) : kindOf(cell);
      const network = cell.drawn ? "drawn by hand" : cell.type
        ? `network${cell.answered ? "" : ", unsure"}: ${guesses(cell)}`
        : `network: ${kindOf(cell)} ${percent(cell.score)}`;
      const cut = cell.cut ? "; cut by the frame" : "";
      return `${now}${isConfirmed(cell) ? ", confirmed" : ""}; ${network}${cut}; `
        + cell.photograph.file;
    }

    function add(more) {
      const fresh = more.photographs.map((about) => ({ ...about, cells: [] }));
      photographs.push(...fresh);
      for (const cell of more.cells) admit({ ...cell }, fresh[cell.photograph]);
      const known = { ...data.others };
      for (const photograph of photographs) known[photograph.file] = photograph;
      for (const event of events) {
        const about = known[event.file];
        // Not of a photograph that was counted anew since, or that is not of this slide.
        if (about?.digest !== event.digest) continue;
        if (fresh.includes(about) && event.drawn && !cells.has(event.id)) admit(drawn(event), about);
        Object.assign(event, framing(event.box, about)); // earlier pages kept none
        latest.set(event.id, event);
      }
      arrange();
      count();
      fresh.forEach(paint);
    }
    function admit(cell, photograph) {
      Object.assign(cell, { photograph }, framing(cell.box, photograph));
      cell.id = [photograph.file, photograph.digest, cell.kind, ...cell.box].join("|");
      if (cells.has(cell.id)) return null;
      photograph.cells.push(cell);
      cells.set(cell.id, cell);
      if (cell.kind === "WBC") cell.tile = tileOf(cell);
      return cell;
    }
    const drawn = ({ kind, box }) => ({
      kind, box, drawn: true, counted: false, answered: false,
      score: null, type: null, probability: null, probabilities: null,
    });

    function say(cell, what, about = {}) {
      const { photograph, kind, box, framed, cut } = cell, { file, digest, fit, named } = photograph;
      const event = {
        id: cell.id, file, digest, kind, box, drawn: Boolean(cell.drawn), person: what,
        machine: cell.type ?? (cell.drawn || kind === "WBC" ? "" : kind),
        probability: sureness(cell), reader: readerField.value.trim(),
        time: new Date().toISOString(),
        // What the machine's totals hold of it.
        kindCounted: Boolean(cell.counted && fit), framed, cut,
        typeCounted: cell.counted && named && kind === "WBC"
          ? (cell.answered ? cell.type : UNANSWERED) : null,
        ...about,
      };
      events.push(event);
      latest.set(cell.id, event);
      return cell;
    }
    /** What the person at the page says of the chosen cell. */
    function answer(what) {
      if (!chosen) return;
      if (chosen.kind !== "WBC" && what !== DELETED) what = chosen.kind;
      changed(say(chosen, what), true);
    }
    function confirm() {
      const type = chosen && (typeNow(chosen) ?? chosen.type);
      if (type || chosen?.kind !== "WBC") answer(type);
      else announce("There is no answer to confirm: choose a type.");
    }
    function undo() {
      const event = events.pop();
      if (!event) return announce("There is nothing to take back.");
      const cell = cells.get(event.id);
      const before = events.findLast((earlier) => earlier.id === event.id);
      if (before) latest.set(event.id, before);
      else latest.delete(event.id);
      if (cell?.drawn && !before) {
        cell.tile?.remove();
        cells.delete(cell.id);
        cell.photograph.cells.splice(cell.photograph.cells.indexOf(cell), 1);
        if (chosen === cell) choose(null);
      } else if (cell?.tile) choose(cell);
      changed(cells.get(event.id), false);
      if (!field.open) chosen?.tile?.focus();
    }
    function changed(cell, goesOn) {
      isKept = keep(data.key, { events, reader: readerField.value });
      if (cell?.tile) place(cell, goesOn && !field.open);
      count();
      if (field.open) drawBoxes();
      announce(cell ? inWords(cell) : "");
    }

    // Tiles

    function tileOf(cell) {
      const tile = make("div", {
        role: "option", tabindex: "-1", class: "tile", click: () => to(tile),
        dblclick: () => showField(cell), focus: () => choose(cell),
      }, make("span", { class: "words" }),
      make("img", { alt: "", decoding: "async", width: SIDE, height: SIDE }),
      make("span", { class: "now", "aria-hidden": "true" }),
      make("span", { class: "was", "aria-hidden": "true" }));
      tile.cell = cell;
      return tile;
    }
    function relabel(cell) {
      const { tile } = cell, group = groupOf(cell), sure = percent(sureness(cell));
      tile.querySelector(".words").textContent = inWords(cell);
      tile.classList.toggle("touched", isTouched(cell));
      tile.hidden = !isWanted(cell);
      const [now, was] = tile.querySelectorAll("span.now, span.was");
      now.replaceChildren(symbol(looks[group] ?? looks.WBC),
        isTouched(cell) ? `${isConfirmed(cell) ? "✓" : "✎"} ${group}` : sure);
      was.textContent = cell.drawn ? "drawn by hand"
        : isTouched(cell) ? `network: ${cell.type ? guesses(cell) : `no type ${sure}`}`
        : cell.answered || !cell.type ? orSecond(cell) : `${cell.type}? ${orSecond(cell)}`;
    }
    /** Draws all cells of a photograph, so that its picture is decoded once. */
    async function paint(photograph) {
      const white = photograph.cells.filter(({ tile }) => tile && !tile.querySelector("img").src);
      if (!white.length || !photograph.picture) return;
      const picture = Object.assign(new Image(), { src: photograph.picture });
      try { await picture.decode(); } catch { return; }
      const zoom = picture.naturalWidth / photograph.width;
      const paper = make("canvas", { width: SIDE, height: SIDE }).getContext("2d");
      Object.assign(paper, { imageSmoothingQuality: "high", fillStyle: "#888888" });
      for (const { box: [x, y, right, lower], tile } of white) {
        const side = Math.max(right - x, lower - y) * 1.3;
        const corner = [(x + right - side) / 2, (y + lower - side) / 2];
        const area = [...corner, side, side].map((pixels) => pixels * zoom);
        paper.fillRect(0, 0, SIDE, SIDE); // what lies beyond the frame
        paper.drawImage(picture, ...area, 0, 0, SIDE, SIDE);
        // A thousand pictures scroll more smoothly than as many canvases.
        tile.querySelector("img").src = paper.canvas.toDataURL("image/jpeg", 0.9);
      }
    }

    // Groups of tiles, sorted and filtered

    const GROUPS = ["no answer", ...answers, "not counted", "deleted"];
    const groups = new Map(GROUPS.map((name, place) => {
      const grid = make("div", { role: "listbox", class: "tiles",
                                 "aria-labelledby": `gallery-group-${place}` });
      const number = make("span", { class: "count" });
      const section = make("section", { hidden: true },
        make("h3", { id: `gallery-group-${place}` }, looks[name] && symbol(looks[name]),
          ` ${name} `, number), grid);
      return [name, { grid, number, section }];
    }));
    const ORDERS = {
      "most unsure first": (cell) => sureness(cell) ?? -1,
      "surest first": (cell) => -(sureness(cell) ?? -1),
      "nearest to another type first": (cell) => (cell.probability ?? 0) - second(cell)[1],
      "by photograph": (cell) => photographs.indexOf(cell.photograph) * 1e6 + cell.box[0],
    };
    const rank = (cell) => ORDERS[orderField.value](cell);
    const isWanted = (cell) => 100 * (sureness(cell) ?? 0) <= Number(sureField.value)
      && (typeField.value === "all" || groupOf(cell) === typeField.value)
      && !(newField.checked && isTouched(cell));
    const inSight = () => [...list.querySelectorAll(".tile:not([hidden])")];
    const beside = (cell, step) => {
      const tiles = inSight();
      return tiles[tiles.indexOf(cell?.tile) + step];
    };

    function arrange() {
      const white = [...cells.values()].filter((cell) => cell.tile);
      white.sort((one, other) => rank(one) - rank(other));
      for (const { grid } of groups.values()) grid.replaceChildren();
      for (const cell of white) {
        relabel(cell);
        groups.get(groupOf(cell)).grid.append(cell.tile);
      }
      if (!chosen || chosen.tile?.hidden) choose(inSight()[0]?.cell ?? null);
      numberGroups();
    }
    /** Puts a cell that was judged where it belongs; then the next one is chosen. */
    function place(cell, goesOn) {
      const next = goesOn ? beside(cell, 1) ?? beside(cell, -1) : null;
      const { grid } = groups.get(groupOf(cell));
      if (next) {
        choose(next.cell);
        // Before anything moves: what has the focus costs a layout of all tiles to move.
        if (list.contains(document.activeElement)) next.focus();
      }
      relabel(cell);
      const after = [...grid.children].find(
        (tile) => tile !== cell.tile && rank(tile.cell) > rank(cell));
      grid.insertBefore(cell.tile, after ?? null);
      numberGroups();
    }
    function numberGroups() {
      nothing.hidden = list.querySelector(".tile:not([hidden])") != null;
      for (const { grid, number, section } of groups.values()) {
        const n = grid.querySelectorAll(".tile:not([hidden])").length;
        section.hidden = !n;
        number.textContent = n;
      }
    }
    /** The tile in the next line, up or down, that is nearest. */
    function vertical(tile, step) {
      const { left, top } = tile.getBoundingClientRect();
      const beyond = inSight().map((other) => ({ other, area: other.getBoundingClientRect() }))
        .filter(({ area }) => step * (area.top - top) > 2);
      const line = beyond.at(step > 0 ? 0 : -1)?.area.top;
      const away = ({ area }) => Math.abs(area.left - left);
      return beyond.filter(({ area }) => Math.abs(area.top - line) < 2)
        .sort((one, other) => away(one) - away(other))[0]?.other;
    }
    function choose(cell) {
      chosen?.tile?.setAttribute("tabindex", "-1");
      chosen?.tile?.setAttribute("aria-selected", "false");
      chosen = cell;
      chosen?.tile?.setAttribute("tabindex", "0");
      chosen?.tile?.setAttribute("aria-selected", "true");
      for (const bar of bars) {
        bar.firstChild.textContent = cell ? inWords(cell) : "No cell is chosen.";
      }
    }
    function to(tile) {
      if (!tile) return;
      choose(tile.cell);
      tile.focus();
    }

    // The count: the machine's totals, and what the corrections change in them

    function machineTotals() {
      const none = Object.fromEntries([...types, ...data.kinds].map(({ name }) => [name, 0]));
      const machine = { unanswered: data.totals?.unanswered ?? 0 };
      for (const tally of ["types", "kinds", "framed", "cut"])
        machine[tally] = { ...none, ...data.totals?.[tally] };
      if (data.totals) return machine;
      for (const cell of cells.values()) {
        if (!cell.counted) continue;
        if (cell.photograph.fit) addKind(machine, cell, 1);
        if (!cell.photograph.named || cell.kind !== "WBC") continue;
        if (cell.answered) machine.types[cell.type] += 1; else machine.unanswered += 1;
      }
      return machine;
    }
    function addKind(totals, { kind, framed, cut }, n) {
      totals.kinds[kind] += n;
      if (framed) totals.framed[kind] += n;
      if (cut) totals.cut[kind] += n;
    }
    function totals() {
      const machine = machineTotals(), now = structuredClone(machine);
      for (const event of latest.values()) {
        const { kind, person: said, kindCounted, typeCounted } = event, remains = said !== DELETED;
        addKind(now, event, remains - kindCounted);
        if (kind !== "WBC") continue;
        if (typeCounted === UNANSWERED) now.unanswered -= 1;
        else if (typeCounted) now.types[typeCounted] -= 1;
        if (remains && answers.includes(said)) now.types[said] += 1;
        else if (remains) now.unanswered += 1;
      }
      const five = types.filter((type) => type.low != null);
      const sum = (names) => names.reduce((all, name) => all + now.types[name], 0);
      const n = sum(five.map(({ name }) => name)), nNamed = sum(answers);
      Object.assign(now, { answered: n, white: nNamed + now.unanswered });
      const isForeign = now.white >= data.foreign.cells && nNamed < data.foreign.share * now.white;
      const { confidence, least } = data;
      const rows = five.map((type) => judgeType(type, now.types[type.name], n, confidence, least));
      const ratios = data.ratios.map((ratio) =>
        judgeRatio(ratio, now.framed[ratio.first], now.framed[ratio.second], confidence, least));
      const remarks = [...n && !isForeign ? rows : [], ...ratios].filter(({ remark }) => remark)
        .map(({ reference, remark }) => reference ? `${reference.name}. ${remark}` : remark);
      const kinds = [
        ...data.kinds.map((kind) => [kind, machine.kinds[kind.name], now.kinds[kind.name]]),
        ["white, without an answer", machine.unanswered, now.unanswered],
        ["white, none of the five types", null, now.types[answers.at(-1)]],
      ];
      return { machine, now, rows, ratios, kinds, remarks, n, isForeign };
    }

    const tableOf = (caption, heads, rows, about) => make("table", about, make("caption", {}, caption),
      make("thead", {}, make("tr", {}, heads.map((head, place) =>
        make("th", { scope: "col", class: place ? "number" : null }, head)))),
      make("tbody", {}, rows.map(([first, ...others]) => make("tr", {},
        make("th", { scope: "row" }, first),
        others.map((value) => make("td", { class: "number" }, value))))));

    function count() {
      const { machine, now, rows, ratios, kinds, remarks, n, isForeign } = totals();
      const number = (value) => value == null ? "–" : whole(value);
      const label = (look, text) => make("span", { class: "nowrap" }, symbol(look), ` ${text}`);
      const isMuch = n >= data.least, interval = `${100 * data.confidence}\u202f% interval`;
      const shares = tableOf(`Differential of ${plural(n, "white cell", "white cells")}`,
        ["Type", "Network", "Now", "Per cent", interval, "Adult range",
         ...isMuch ? ["Beside it"] : []],
        rows.map(({ type, count: counted, percent: share, low, high, verdict }) => [
          label(type, type.name), whole(machine.types[type.name]), whole(counted),
          n ? tenths(share) : "–", `${tenths(low)} – ${tenths(high)}`,
          `${type.low} – ${type.high}`, ...isMuch ? [verdict] : []]));
      const ofKinds = tableOf("All cells", ["Kind", "Network", "Now"], kinds.map(
        ([kind, ...numbers]) => [kind.name ? label(kind, kind.plural) : kind,
                                 ...numbers.map(number)]));
      const ofRatios = tableOf("Ratios, without cells at the left and upper edge",
        ["Ratio", "Counted", "Value", interval, "In adult blood"],
        ratios.map(({ reference, first, second: other, ratio, low, high }) => [
          reference.name, `${whole(first)} : ${whole(other)}`,
          ...isNaN(ratio) ? ["–", "–"] : [short(ratio), `${short(low)} – ${short(high)}`],
          `${short(reference.low)} – ${short(reference.high)}`]), { class: "ratios" });
      tallies.replaceChildren(...[
        isForeign ? make("p", { role: "note" }, make("strong", {}, data.foreign.text)) : shares,
        ofKinds, ofRatios].map((part) => make("div", { class: "scroll", tabindex: "0" }, part)));
      remarked.replaceChildren(...remarks.map((remark) => make("li", {}, remark)));
      for (const place of document.querySelectorAll("[data-count]")) {
        const [tally, kind] = place.dataset.count.split(" ");
        place.textContent = whole(kind ? now[tally][kind] : now[tally]);
      }

      const said = [...latest.values()];
      const nOf = (test) => said.filter(test).length;
      const nDeleted = nOf((event) => event.person === DELETED);
      const nDrawn = nOf((event) => event.drawn && event.person !== DELETED);
      const nConfirmed = nOf((event) => !event.drawn && event.person === event.machine);
      summary.textContent = said.length
        ? `Judged by a person: ${whole(said.length)} (${whole(nConfirmed)} as the network says, `
          + `${whole(said.length - nDeleted - nDrawn - nConfirmed)} otherwise, ${whole(nDrawn)} `
          + `drawn, ${whole(nDeleted)} deleted). ` + (isKept ? "Kept in this browser."
            : "This browser keeps nothing: take corrections.csv with you before you leave.")
        : "Nobody has judged these cells yet: all answers are the network's.";
      corrected.hidden = !said.length;
      corrected.replaceChildren(tableOf("What a person said",
        ["Photograph", "Corner", "Network", "Person", "Reader", "Time"],
        said.map((event) => [event.file, event.box.slice(0, 2).map(Math.round).join(", "),
          event.drawn ? "–" : `${event.machine || "not counted"} ${percent(event.probability)}`,
          (event.person === DELETED ? "deleted" : event.person || "no type")
            + (event.drawn ? " (drawn)" : ""),
          event.reader || "–", `${event.time.slice(0, 16).replace("T", " ")} UTC`])));
    }

    // Files to take away, and to bring back

    const corrections = () => [CORRECTIONS, ...[...latest.values()].map((event) =>
      [event.file, event.kind, ...event.box, event.machine, event.probability, event.person,
       event.reader, event.time])];
    const remaining = () => [...cells.values()].filter(
      (cell) => !isDeleted(cell) && (cell.counted || isTouched(cell)));
    const cellRows = () => [
      ["file", "kind", ...BOX, "machine", "probability", "answered", "cut", "now", "person",
       "reader", "time"],
      ...remaining().map((cell) => {
        const event = latest.get(cell.id) ?? {};
        return [cell.photograph.file, cell.kind, ...cell.box, cell.type, sureness(cell),
                Boolean(cell.answered), Boolean(cell.cut), typeNow(cell), event.person,
                event.reader, event.time];
      }),
    ];
    function countRows() {
      const { machine, rows, ratios, kinds, remarks, n, isForeign } = totals();
      return [
        ["sample", sampleField.value], ["reader", readerField.value],
        ["time", new Date().toISOString()], ["laboratory", data.laboratory],
        ["white cells of the five types", n], [],
        ...isForeign ? [[data.foreign.text]] : [
          ["type", "network", "now", "per cent", "low", "high", "adult low", "adult high"],
          ...rows.map(({ type, count: counted, percent: share, low, high }) => [type.name,
            machine.types[type.name], counted, n ? share : "", low, high, type.low, type.high]),
        ], [],
        ["kind", "network", "now"], ...kinds.map(([kind, ...both]) => [kind.name ?? kind, ...both]),
        [], ["ratio", "first", "second", "value", "low", "high", "adult low", "adult high"],
        ...ratios.map(({ reference, first, second: other, ratio, low, high }) => [reference.name,
          first, other, ...other ? [ratio, low, high] : ["", "", ""], reference.low,
          reference.high]),
        [], ...remarks.map((remark) => [remark]),
      ];
    }
    const labelOf = (cell) => cell.kind === "WBC" ? typeNow(cell) ?? "WBC" : cell.kind;
    function coco() {
      const names = [...data.kinds, ...types].map((look) => look.name);
      return {
        images: photographs.map(({ file, width, height }, id) =>
          ({ id: id + 1, file_name: file, width, height })),
        categories: names.map((name, id) => ({ id: id + 1, name })),
        annotations: remaining().map((cell, id) => {
          const [x, y, right, lower] = cell.box, [width, height] = [right - x, lower - y];
          return { id: id + 1, image_id: photographs.indexOf(cell.photograph) + 1, iscrowd: 0,
                   category_id: names.indexOf(labelOf(cell)) + 1,
                   bbox: [x, y, width, height], area: width * height };
        }),
      };
    }
    function voc(photograph) {
      const tag = (name, inside) => `<${name}>${inside}</${name}>`;
      const edges = ["xmin", "ymin", "xmax", "ymax"];
      const objects = remaining().filter((cell) => cell.photograph === photograph).map((cell) =>
        tag("object", tag("name", labelOf(cell)) + tag("truncated", Number(Boolean(cell.cut)))
          + tag("bndbox", edges.map((edge, place) => tag(edge, cell.box[place])).join(""))));
      const { file, width, height } = photograph;
      const size = tag("width", width) + tag("height", height) + tag("depth", 3);
      return [`${file.replace(/\.[^./]*$/, "")}.xml`, tag("annotation",
        tag("filename", escaped(file)) + tag("size", size) + objects.join("\n")) + "\n"];
    }
    const FILES = {
      "corrections.csv": ["text/csv", () => [csvOf(corrections())]],
      "cells-now.csv": ["text/csv", () => [csvOf(cellRows())]],
      "count.xlsx": ["application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        () => zip(workbook({ count: countRows(), cells: cellRows(), corrections: corrections() }))],
      "boxes-coco.json": ["application/json", () => [JSON.stringify(coco())]],
      "boxes-voc.zip": ["application/zip", () => zip(photographs.map(voc))],
    };

    /** Takes in a corrections.csv of these photographs: of this person, or another one. */
    function bringBack(csv) {
      const [heads = [], ...rows] = rowsOf(csv.replace(/^\ufeff/, ""));
      if (CORRECTIONS.some((name) => !heads.includes(name))) {
        return announce(`No corrections: expected the columns ${CORRECTIONS.join(", ")}.`);
      }
      let n = 0;
      for (const row of rows) {
        const about = Object.fromEntries(heads.map((head, place) => [head, row[place] ?? ""]));
        const box = BOX.map((edge) => Number(about[edge])), { kind, reader, time } = about;
        const photograph = photographs.find(({ file }) => file === about.file);
        const isKnown = [...answers, DELETED, "", kind].includes(about.person) && looks[kind];
        if (!photograph || !isKnown || !box.every(Number.isFinite)) continue;
        const cell = photograph.cells.find((one) => one.kind === kind
          && one.box.every((edge, place) => Math.abs(edge - box[place]) < 0.06))
          ?? (about.machine ? null : admit(drawn({ kind, box }), photograph));
        if (!cell || latest.get(cell.id)?.time >= time) continue;
        say(cell, about.person, { reader, time });
        n += 1;
      }
      arrange();
      photographs.forEach(paint);
      changed(null, false);
      announce(`${plural(n, "correction", "corrections")} of ${rows.length} brought back.`);
    }

    // One photograph, with the boxes of its cells

    let view = null; // {photograph, x, y, width}: what of it is in sight, in its pixels
    let gesture = null, isDrawing = false;
    const pointers = new Map();

    function showField(cell) {
      if (!cell) return;
      choose(cell);
      const { photograph, box: [x, y, right, lower] } = cell, { width, height } = photograph;
      if (view?.photograph !== photograph) {
        stage.querySelector("svg")?.remove();
        stage.insertAdjacentHTML("afterbegin", `<svg aria-hidden="true">
          <image width="${width}" height="${height}" preserveAspectRatio="none"/>
          <g></g><rect class="rubber" hidden/></svg>`);
        stage.querySelector("image").setAttribute("href", photograph.picture ?? "data:,");
        stage.style.setProperty("--ratio", width / height);
      }
      if (!field.open) field.showModal();
      view = { photograph };
      fieldTitle.textContent = photograph.file;
      moveTo((x + right) / 2, (y + lower) / 2, 5 * Math.max(right - x, lower - y));
      stage.focus({ preventScroll: true });
    }
    /** So much of the photograph's width as may be in sight. */
    const within = (width, { width: most }) => Math.max(Math.min(width, most), most / 60);
    function moveTo(x, y, wanted) {
      const { width: most, height: tall } = view.photograph;
      const width = within(wanted, view.photograph), height = width * tall / most;
      Object.assign(view, { width, height, x: clamp(x - width / 2, most - width),
                            y: clamp(y - height / 2, tall - height) });
      stage.querySelector("svg").setAttribute("viewBox", `${view.x} ${view.y} ${width} ${height}`);
      drawBoxes();
    }
    const middle = () => [view.x + view.width / 2, view.y + view.height / 2];
    const pan = (right, down) => {
      const [x, y] = middle();
      moveTo(x + right, y + down, view.width);
    };
    /** Zooms so that what lies at a place, by default in the middle, remains there. */
    function zoomBy(times, at = middle()) {
      const width = within(view.width / times, view.photograph);
      const [x, y] = middle(), share = width / view.width;
      moveTo(at[0] + (x - at[0]) * share, at[1] + (y - at[1]) * share, width);
    }
    function drawBoxes() {
      const { photograph, width } = view, unit = 6 * width / (stage.clientWidth || 800);
      const shown = photograph.cells.filter((cell) => cell === chosen
        || !isDeleted(cell) && (cell.kind === "WBC" || othersField.checked));
      stage.querySelector("g").innerHTML = shown.map((cell) => {
        const [x, y, right, lower] = cell.box, look = looks[typeNow(cell)] ?? looks[cell.kind];
        const states = [cell === chosen ? "chosen" : "", isDeleted(cell) ? "deleted" : ""];
        const rect = (name) => `<rect class="${name}" x="${x}" y="${y}" `
          + `width="${right - x}" height="${lower - y}"/>`;
        // The marker stands above the box, or below it: never on the cell.
        const at = y > 3 * unit ? y - 1.6 * unit : lower + 1.6 * unit;
        const marker = `<g class="marker" `
          + `transform="translate(${x + unit} ${at}) scale(${unit})">${look.marker}</g>`;
        return `<g class="${states.join(" ")}" data-place="${photograph.cells.indexOf(cell)}" `
          + `stroke="${look.color}" fill="${look.color}"><title>${escaped(inWords(cell))}</title>`
          + rect("halo") + rect("box") + (cell.kind === "WBC" ? marker : "") + "</g>";
      }).join("");
      const perMicrometre = (photograph.red_cell ?? 0) / data.micrometres
        * stage.clientWidth / width;
      const length = [100, 50, 20, 10, 5, 2, 1].find(
        (micrometres) => micrometres * perMicrometre < 0.3 * stage.clientWidth);
      scaleBar.hidden = !perMicrometre;
      scaleBar.style.width = `${length * perMicrometre}px`;
      scaleBar.textContent = `${length} µm`;
    }

    function placeOf({ clientX, clientY }) {
      const area = stage.getBoundingClientRect(), pixels = view.width / area.width;
      return [view.x + (clientX - area.left) * pixels, view.y + (clientY - area.top) * pixels];
    }
    function pressed(event) {
      stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      const target = event.target.closest("[data-place]");
      gesture = { start: placeOf(event), hasMoved: pointers.size > 1, target };
    }
    function moved(event) {
      if (!gesture || !pointers.has(event.pointerId)) return;
      const spread = () => {
        const [one, other] = [...pointers.values()];
        return Math.hypot(one[0] - other[0], one[1] - other[1]);
      };
      const isPinch = pointers.size > 1, before = isPinch && spread();
      const last = pointers.get(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (isPinch) return zoomBy(spread() / (before || 1));
      const here = placeOf(event), pixels = view.width / stage.clientWidth;
      const away = Math.hypot(here[0] - gesture.start[0], here[1] - gesture.start[1]);
      gesture.hasMoved ||= away > 4 * pixels;
      if (!gesture.hasMoved) return;
      if (isDrawing) rubber(boxBetween(gesture.start, here));
      else pan((last[0] - event.clientX) * pixels, (last[1] - event.clientY) * pixels);
    }
    function released(event) {
      pointers.delete(event.pointerId);
      if (!gesture || pointers.size) return;
      const { start, hasMoved, target } = gesture;
      gesture = null;
      rubber([0, 0, 0, 0]);
      if (isDrawing && hasMoved) drawBox(boxBetween(start, placeOf(event)));
      else if (!hasMoved && target) {
        choose(view.photograph.cells[target.dataset.place]);
        drawBoxes();
      }
    }
    function rubber([x, y, right, lower]) {
      const shape = { x, y, width: right - x, height: lower - y };
      const shown = stage.querySelector(".rubber");
      shown.toggleAttribute("hidden", !shape.width);
      for (const [name, value] of Object.entries(shape)) shown.setAttribute(name, value);
    }
    function boxBetween([x, y], [otherX, otherY]) {
      const { width, height } = view.photograph;
      const [left, right] = [x, otherX].sort((one, other) => one - other);
      const [upper, lower] = [y, otherY].sort((one, other) => one - other);
      return [clamp(left, width), clamp(upper, height), clamp(right, width), clamp(lower, height)]
        .map((edge) => Math.round(10 * edge) / 10);
    }
    function drawBox(box) {
      if (Math.min(box[2] - box[0], box[3] - box[1]) < 3) return; // a slip of the hand
      const cell = admit(drawn({ kind: kindField.value, box }), view.photograph);
      if (!cell) return;
      drawing(false);
      choose(cell);
      changed(say(cell, cell.kind === "WBC" ? "" : cell.kind), false);
      paint(view.photograph);
    }
    /** For those who draw with keys: a box of a cell's size, in the middle of what is in sight. */
    function drawInMiddle() {
      const { red_cell, width } = view.photograph, [x, y] = middle();
      const half = (red_cell ?? width / 12) * (kindField.value === "WBC" ? 0.9 : 0.5);
      drawBox(boxBetween([x - half, y - half], [x + half, y + half]));
    }
    function drawing(on) {
      isDrawing = on;
      drawButton.setAttribute("aria-pressed", on);
      stage.classList.toggle("drawing", on);
    }

    // By keys

    function step(by) {
      const next = beside(chosen, by) ?? (chosen?.tile ? null : inSight()[0]);
      if (!next) return;
      if (field.open) showField(next.cell); else to(next);
      next.scrollIntoView({ block: "nearest" });
    }
    const ANYWHERE = {
      u: undo, c: confirm, Enter: confirm, Delete: () => answer(DELETED),
      Backspace: () => answer(DELETED), ArrowLeft: () => step(-1), ArrowRight: () => step(1),
      ...Object.fromEntries(answers.map((name, place) => [place + 1, () => answer(name)])),
    };
    const IN_GALLERY = {
      z: () => showField(chosen), " ": () => showField(chosen),
      ArrowUp: () => to(vertical(chosen.tile, -1)), ArrowDown: () => to(vertical(chosen.tile, 1)),
      Home: () => to(inSight()[0]), End: () => to(inSight().at(-1)),
    };
    const IN_FIELD = {
      "+": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => zoomBy(0.001),
      ArrowUp: () => pan(0, -view.height / 5), ArrowDown: () => pan(0, view.height / 5),
      d: () => drawing(!isDrawing), b: drawInMiddle,
    };
    function pressedKey(event) {
      const { target, ctrlKey, metaKey, altKey } = event;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      if (altKey || target.matches("input, select, textarea")) return;
      const isButton = target.matches("button, a, summary");
      if (isButton && [" ", "Enter"].includes(key)) return;
      const action = ctrlKey || metaKey ? key === "z" && undo
        : (field.open ? IN_FIELD : IN_GALLERY)[key] ?? ANYWHERE[key];
      if (!action || !field.open && key.startsWith("Arrow") && !target.matches(".tile")) return;
      event.preventDefault();
      event.stopPropagation();
      action();
    }

    // The page

    const button = (label, key, click, about = {}) => make("button",
      { type: "button", click, "aria-keyshortcuts": key, ...about },
      label, key && make("kbd", { "aria-hidden": "true" }, key));
    const labelled = (text, ...inputs) => make("label", {}, make("span", {}, text), ...inputs);
    const select = (options, change) => make("select", { change },
      options.map((name) => make("option", { value: name }, name)));
    const status = make("p", { role: "status", class: "status" });
    const announce = (words) => { status.textContent = words; };

    const typeField = select(["all", ...GROUPS], arrange);
    const orderField = select(Object.keys(ORDERS), arrange);
    const sureShown = make("output", {}, "100\u202f%");
    const sureField = make("input", { type: "range", min: 30, max: 100, value: 100, input: () => {
      sureShown.textContent = percent(sureField.value / 100);
      arrange();
    } });
    const newField = make("input", { type: "checkbox", change: arrange });
    const sampleField = make("input", {
      type: "text", value: recall(data.result).sample ?? data.title,
      change: () => keep(data.result, { sample: sampleField.value }),
    });
    const readerField = make("input", { type: "text", autocomplete: "name", value: reader,
      change: () => {
        // Whoever gives a name after the work has begun did that work.
        for (const event of events) event.reader ||= readerField.value.trim();
        changed(null, false);
      } });
    const tallies = make("div", { class: "tallies" });
    const remarked = make("ul", { class: "remarks" });
    const summary = make("p", { class: "note" });
    const corrected = make("div", { class: "scroll corrected", tabindex: "0" });
    const list = make("div", { class: "groups" });
    const nothing = make("p", { class: "note" }, "There is no white cell like this.");
    for (const { section } of groups.values()) list.append(section);
    const bars = [0, 1].map(() => make("div", { class: "answers", role: "toolbar",
                                                "aria-label": "The chosen cell is" },
      make("p", { class: "of" }),
      make("div", { class: "types" }, types.map((type, place) =>
        button([symbol(type), type.name], String(place + 1), () => answer(type.name)))),
      make("div", { class: "acts" }, button("confirm", "C", confirm),
        button("delete", "Del", () => answer(DELETED), { "aria-keyshortcuts": "Delete" }),
        button("undo", "U", undo))));
    bars[0].lastChild.append(button("in its field", "Z", () => showField(chosen)));

    const othersField = make("input", { type: "checkbox", change: () => drawBoxes() });
    const kindField = select(data.kinds.map((kind) => kind.name).sort().reverse());
    const drawButton = button("draw a box", "D", () => drawing(!isDrawing),
                              { "aria-pressed": "false" });
    const scaleBar = make("div", { class: "scale-bar" });
    const stage = make("div", {
      class: "stage", tabindex: "0", role: "application",
      "aria-label": "The photograph. Left and right: another cell; up and down: move; plus, minus, "
        + "zero: zoom; B: a new box in the middle",
      pointerdown: pressed, pointermove: moved, pointerup: released, pointercancel: released,
      wheel: (event) => {
        event.preventDefault();
        zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, placeOf(event));
      },
    }, scaleBar);
    const fieldTitle = make("h2", {});
    const field = make("dialog", {
      class: "field", "aria-label": "The cell in its field", keydown: pressedKey,
      close: () => { drawing(false); chosen?.tile?.focus(); },
    },
    make("div", { class: "head" }, fieldTitle, button("close", "Esc", () => field.close())),
    make("div", { class: "around" }, stage),
    make("div", { class: "controls" },
      button("back", "←", () => step(-1), { "aria-keyshortcuts": "ArrowLeft" }),
      button("next", "→", () => step(1), { "aria-keyshortcuts": "ArrowRight" }),
      button("closer", "+", () => zoomBy(1.5)), button("wider", "−", () => zoomBy(1 / 1.5)),
      button("whole", "0", () => zoomBy(0.001)), drawButton, labelled("new box", kindField),
      labelled("show all kinds", othersField)), bars[1]);

    const bringField = make("input", { type: "file", accept: ".csv,text/csv", change: async () => {
      const [file] = bringField.files;
      if (file) bringBack(await file.text());
      bringField.value = "";
    } });
    const details = make("details", { class: "said" },
      make("summary", {}, "What was corrected; files to take away"),
      make("div", { class: "controls" },
        Object.entries(FILES).map(([name, [type, parts]]) =>
          button(name, null, () => save(name, type, parts()))),
        button("print the sheet", null, () => print()),
        labelled("Bring back a corrections.csv", bringField)),
      make("p", { class: "note" }, data.others && Object.keys(data.others).length
        ? "Cells and boxes are those of this page's photographs; the count is of all."
        : "To teach it your laboratory: "
          + "wbc teach corrections.csv --name my-lab --photographs FOLDER"), corrected);
    const printed = make("p", { class: "printed" });
    const taught = data.laboratory ? `answers as the laboratory ${data.laboratory} taught; ` : "";
    addEventListener("beforeprint", () => {
      details.open = true;
      const n = photographs.length + Object.keys(data.others ?? {}).length;
      printed.textContent = `${plural(n, "photograph", "photographs")}; ${taught}printed `
        + new Date().toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" });
    });

    root.classList.add("gallery");
    document.body.classList.add("has-gallery");
    // In a frame of a notebook, links to files beside the page lead nowhere.
    document.body.classList.toggle("framed", location.protocol === "about:");
    root.replaceChildren(
      make("section", {}, make("h2", {}, "The count"),
        make("div", { class: "controls who" },
          labelled("Sample", sampleField), labelled("Reader", readerField)),
        printed, tallies, remarked, summary,
        make("p", { class: "note" }, "Intervals are those of chance alone (Clopper and Pearson), "
          + "without the network's mistakes. Ranges: B. J. Bain, Blood Cells, 5th ed. (2015); of ratios "
          + "A. V. Hoffbrand and P. A. H. Moss, Essential Haematology, 6th ed. (2011). ",
        make("strong", {}, "Not for diagnosis.")),
        details, make("p", { class: "signature" }, "Date and signature")),
      make("section", { class: "work", keydown: pressedKey }, make("h2", {}, "White cells"),
        make("div", { class: "controls filters" }, labelled("Type", typeField),
          labelled("Order", orderField),
          labelled("Certain at most to", make("span", {}, sureField, sureShown)),
          labelled("not judged yet", newField)),
        nothing, list, bars[0]),
      status, field);
    add(data);
    return { add };
  }

  return { open };
})();

if (document.getElementById("cells")) {
  Gallery.open(document.getElementById("gallery"),
               JSON.parse(document.getElementById("cells").textContent));
}
