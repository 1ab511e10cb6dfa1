/* The stand-alone page: takes photographs, has them read by `worker.js`, hands the cells to the
gallery. Nothing leaves the machine: the page may ask no address for anything. */
"use strict";

(() => {
  const { plural, framing } = Tables;
  const byId = (id) => document.getElementById(id);
  const jsonOf = (id) => JSON.parse(byId(id).textContent);
  const { about, gallery: empty, advice } = jsonOf("about");
  const status = byId("status"), progress = byId("progress"), rows = byId("photographs");
  const readings = []; // what was read, in order, as `wbc count` writes it
  const photographs = []; // all that were given, in order
  const asked = []; // names of laboratories' files that the worker has yet to open, in order
  let laboratory = null; // the one that taught
  let shown = null, waiting = [], current = [], isReady = false, isBusy = false, isBroken = false;

  const parts = Object.fromEntries([...document.querySelectorAll("script[data-part]")]
    .map((script) => [script.dataset.part, script.textContent.trim()]));
  const worker = startWorker();
  /** Questions arrive in the order of these calls, and are answered in it. */
  const ask = (question) => worker.then((made) => made.postMessage(question));

  function startWorker() {
    const packed = Uint8Array.from(atob(parts.worker), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).blob().then((code) => {
      // No module: browsers start none from a page on disk.
      const made = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
      made.onmessage = ({ data: message }) => answered(message);
      made.onerror = () => say("This browser cannot read photographs: it is too old. "
        + "Chrome, Edge, Firefox and Safari can since 2023.");
      // `#gpu` and `#here` after the page's address choose where the networks run.
      made.postMessage({ parts, about, where: location.hash.slice(1) });
      return made;
    });
  }

  const say = (words) => { status.textContent = words; };
  /** Beside what is said of photographs: of a laboratory's file. */
  function tell(words, isBad = false) {
    byId("taught").textContent = words;
    byId("taught").classList.toggle("bad", isBad);
  }

  function answered(message) {
    if (message.ready) {
      isReady = true;
      document.body.dataset.networks = message.ready;
    }
    if (message.photograph) took(current[message.place], message.photograph);
    if (message.done || message.failed) isBusy = false;
    if ("taught" in message || message.refused) opened(message);
    if (isReady && !isBusy && !asked.length && waiting.length) return next();
    progress.hidden = !isBusy;
    isBroken ||= !isReady;
    if (message.failed) say(`The page cannot read here: ${message.failed}.`);
    else if (message.done) say(`Done: ${plural(readings.length, "photograph", "photographs")}.`);
    else if (message.ready) say("Ready.");
  }

  /** Read what waits, all together: they are taken for a folder of one smear. */
  function next() {
    current = waiting;
    waiting = [];
    isBusy = true;
    progress.hidden = false;
    progress.max = current.length;
    progress.value = 0;
    say(`Reading ${plural(current.length, "photograph", "photographs")} …`);
    const width = byId("red-cell").valueAsNumber;
    ask({ files: current, redCell: width >= 10 && width <= 1000 ? width : null });
  }

  /** Have the worker answer as a laboratory taught, or, without its file, as the networks ship. */
  function teach(file) {
    if (isBroken) return;
    asked.push(file?.name);
    ask({ laboratory: file });
    if (!isBusy) return;
    const these = current.length > 1 ? "these photographs" : "this photograph";
    tell(file ? `${file.name} is opened after ${these} …` : `Answers as they ship after ${these} …`);
  }
  /** What was read before is read anew: one page does not mix answers. */
  function opened({ taught, refused }) {
    const name = asked.shift();
    if (refused) return tell(`${name} ${refused}`, true);
    tell(taught ? `Answers as the laboratory ${taught} taught.` : "Answers as they ship.");
    laboratory = taught;
    byId("ship").hidden = !taught;
    waiting = [...photographs];
    readings.length = 0;
    shown = null;
    for (const filled of [rows, byId("gallery")]) filled.replaceChildren();
  }

  function give(files) {
    const isLaboratory = (file) => file.name.toLowerCase().endsWith(".json");
    const own = [...files].filter((file) => !isLaboratory(file)), [taught] = [...files].filter(isLaboratory);
    photographs.push(...own);
    waiting.push(...own);
    if (taught) teach(taught);
    if (!own.length) return;
    if (isReady && !isBusy && !asked.length) next();
    else if (!isBroken) say(isBusy ? `${plural(waiting.length, "photograph waits", "photographs wait")} …` : "Getting ready …");
  }

  function took(file, photograph) {
    readings.push(photograph);
    progress.value += 1;
    rows.append(rowOf(photograph));
    byId("read").hidden = false;
    if (photograph.problem) return;
    const named = !photograph.reasons.length, { file: name, width, height } = photograph;
    // As before boxes had second guesses, and with what they had then: corrections stay.
    const digest = digestOf({ ...photograph, boxes: photograph.boxes.map(
      ({ probabilities, ...box }) => ({ ...box, cut: framing(box.box, photograph).cut })) });
    // Whoever taught the answers, it is the same sample.
    const sample = digestOf([name, width, height, photograph.boxes.map(({ kind, box }) => [kind, box])]);
    const more = {
      photographs: [{
        file: name, digest, named, width, height, red_cell: photograph.red_cell,
        fit: photograph.fit, picture: URL.createObjectURL(file), page: null,
      }],
      cells: photograph.boxes.map((box) => ({
        photograph: 0, kind: box.kind, box: box.box, score: box.score, counted: box.counted,
        type: box.cell_type, probability: box.type_probability, answered: box.answered,
        probabilities: box.probabilities,
      })),
    };
    if (shown) shown.add(more);
    // The name of one sample is not to stand at the next one.
    else shown = Gallery.open(byId("gallery"), {
      ...empty, ...more, result: `wbc page ${sample}`, laboratory,
      foreign: { ...empty.foreign, share: about.least_answered[laboratory ? "taught" : "shipped"] },
    });
  }

  function rowOf(photograph) {
    const row = document.createElement("tr"), cell = (tag, text) => {
      const made = document.createElement(tag);
      made.textContent = text;
      if (tag === "td" && typeof text === "number") made.className = "number";
      row.append(made);
      return made;
    };
    cell("th", photograph.file).scope = "row";
    if (photograph.problem) {
      cell("td", `The file ${photograph.problem}`).colSpan = about.kinds.length + 2;
      row.className = "failed";
      return row;
    }
    for (const kind of about.kinds)
      cell("td", photograph.boxes.filter((box) => box.kind === kind && box.counted).length);
    cell("td", Math.round(photograph.red_cell));
    const remarks = photograph.reasons.map((reason) => `${reason}: ${advice[reason]}`);
    cell("td", [...remarks, photograph.note].filter(Boolean).join(" "));
    return row;
  }

  /** A short text that changes with what it is made of (FNV-1a). */
  function digestOf(content) {
    let hash = 0x811c9dc5;
    for (const sign of JSON.stringify(content)) hash = Math.imul(hash ^ sign.codePointAt(0), 0x01000193);
    return (hash >>> 0).toString(16).padStart(8, "0");
  }

  const zone = byId("drop");
  for (const [name, take] of [["files", give], ["laboratory", ([file]) => file && teach(file)]]) {
    const field = byId(name);
    field.addEventListener("change", () => { take([...field.files]); field.value = ""; });
  }
  byId("ship").addEventListener("click", () => teach(null));
  for (const name of ["dragenter", "dragover"])
    document.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const name of ["dragleave", "drop"])
    document.addEventListener(name, () => zone.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    give(event.dataTransfer.files);
  });
  window.wbcReadings = readings;
})();
