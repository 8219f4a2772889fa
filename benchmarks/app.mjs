/* One engine of app.py in a worker of its own: the app's network, or onnxruntime-web with a file of it.
 * Given { engine, threads, folder, runs }; answers with milliseconds of each call, and with the last answer. */
const WARM = 60; // calls until the browser has compiled for speed
const read = async (file) => new Uint8Array(await (await fetch(file)).arrayBuffer());

async function ours(folder, threads) {
    const { load } = await import(new URL(`${folder}/net.js`, import.meta.url));
    const module = new URL(`${folder}/${threads > 1 ? "threads" : "net"}.wasm`, import.meta.url);
    const net = await load({ threads, module, shared: threads > 1 }), levels = await read("levels.bin");
    return () => net.runLevels(levels).logits;
}
async function onnxruntime(dtype, threads) {
    const ort = await import("./ort/ort.wasm.bundle.min.mjs");
    Object.assign(ort.env.wasm, { numThreads: threads, simd: true, wasmPaths: new URL("ort/", import.meta.url).href });
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    const session = await ort.InferenceSession.create(await read(`${dtype}.onnx`), options);
    const planes = await read("planes.bin"), shape = JSON.parse(new TextDecoder().decode(await read("shape.json")));
    const tensor = dtype === "int8" ? new ort.Tensor("uint8", await read("input.bin"), shape)
        : new ort.Tensor("float32", new Float32Array(planes.buffer), shape);
    return async () => (await session.run({ [session.inputNames[0]]: tensor }))[session.outputNames[0]].data;
}

onmessage = async ({ data: { engine, threads, folder, runs } }) => {
    try {
        const call = engine === "ours" ? await ours(folder, threads) : await onnxruntime(engine, threads);
        const taken = [];
        let answer;
        for (let turn = -WARM; turn < runs; turn++) {
            const begun = performance.now();
            answer = await call();
            if (turn >= 0) taken.push(performance.now() - begun);
        }
        postMessage({ taken, answer: [...answer] });
    } catch (error) {
        postMessage({ error: String(error.stack ?? error) });
    }
};
