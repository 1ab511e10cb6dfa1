/* Beside the page, so that it stays alive while photographs are read: takes {parts, about, where},
then {files, redCell} and {laboratory}, its file or null, and answers each in turn: {ready},
{photograph}, {done} or {failed}; {taught}, a name or null, or {refused}. */

async function unpacked(part) {
  const packed = Uint8Array.from(atob(part), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** Load a script of the page's own. */
async function imported(part) {
  const address = URL.createObjectURL(new Blob([await unpacked(part)], { type: "text/javascript" }));
  try {
    return await import(address);
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** Load the networks, to be run on the graphics card or here. */
async function open({ parts, about }, where) {
  const runtime = await imported(parts[`ort-${where}`]);
  runtime.env.wasm.wasmBinary = await unpacked(parts[`ort-${where}-wasm`]);
  runtime.env.wasm.numThreads = 1; // a page from disk has no memory to share
  runtime.env.logLevel = "error";
  await openReader({
    ort: runtime, opencv: globalThis.cv, about, providers: [where === "gpu" ? "webgpu" : "wasm"],
    detector: await unpacked(parts.detector), classifier: await unpacked(parts.classifier),
    learned: await unpacked(parts.learned),
  });
}

/** Whether a graphics card can be asked; one that a program stands in for only if that is wanted. */
async function hasGraphicsCard(isWanted) {
  if (!navigator.gpu || !WebAssembly.Suspending) return false;
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return Boolean(adapter) && (isWanted || !adapter.info?.isFallbackAdapter);
}

async function start(given) {
  await imported(given.parts.opencv);
  if (given.where !== "here" && (await hasGraphicsCard(given.where === "gpu"))) {
    try {
      await open(given, "gpu");
      return "gpu";
    } catch (error) {
      console.warn(`The graphics card is not used: ${error.message ?? error}`);
    }
  }
  await open(given, "here");
  return "here";
}

/** Answer by a laboratory's file, or without one as the networks ship; the laboratory's name. */
async function answerBy(file) {
  const text = await file?.text().catch((error) => {
    throw new Error(`could not be read here (${error.message})`);
  });
  return useLaboratory(text);
}

let before = Promise.resolve();
onmessage = ({ data }) => {
  before = before.then(async () => {
    try {
      if (data.parts) {
        postMessage({ ready: await start(data) });
        return;
      }
      if (data.laboratory !== undefined) {
        try {
          postMessage({ taught: await answerBy(data.laboratory) });
        } catch (error) {
          postMessage({ refused: error.message });
        }
        return;
      }
      let place = 0;
      for await (const photograph of countFiles(data.files, data.redCell))
        postMessage({ photograph, place: place++ });
      postMessage({ done: true });
    } catch (error) {
      postMessage({ failed: String(error.message ?? error) });
    }
  });
};
