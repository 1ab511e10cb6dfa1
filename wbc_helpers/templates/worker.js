/* Beside the page, so that it stays alive while photographs are read: takes {parts, about}, then
{files, redCell}, and answers {ready}, {photograph}, {done} or {failed}. */

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

async function start({ parts, about }) {
  const runtime = await imported(parts.ort);
  runtime.env.wasm.wasmBinary = await unpacked(parts["ort-wasm"]);
  runtime.env.wasm.numThreads = 1; // a page from disk has no memory to share
  runtime.env.logLevel = "error";
  await imported(parts.opencv);
  await openReader({
    ort: runtime, opencv: globalThis.cv, about, providers: ["wasm"],
    detector: await unpacked(parts.detector), classifier: await unpacked(parts.classifier),
    learned: await unpacked(parts.learned),
  });
}

let before = Promise.resolve();
onmessage = ({ data }) => {
  before = before.then(async () => {
    try {
      if (data.parts) {
        await start(data);
        postMessage({ ready: true });
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
