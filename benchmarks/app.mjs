/* Engines of app.py in one worker, by turns: the app's network and onnxruntime-web's, at equal threads.
 * Given { threads, levels, planes, bytes, runs, models }; answers with milliseconds of each call. */
import * as ort from "./ort/ort.wasm.bundle.min.mjs";

const WARM = 20;

onmessage = async ({ data: { threads, folder, runs } }) => {
    try {
        const read = async (file) => new Uint8Array(await (await fetch(file)).arrayBuffer());
        const levels = await read("levels.bin"), planes = await read("planes.bin"), side = Math.sqrt(levels.length / 3);
        const { load } = await import(new URL(`${folder}/net.mjs`, import.meta.url));
        const module = new URL(`${folder}/${threads > 1 ? "threads" : "net"}.wasm`, import.meta.url);
        const net = await load({ threads, module, shared: threads > 1 });
        Object.assign(ort.env.wasm, { numThreads: threads, simd: true, wasmPaths: new URL("ort/", import.meta.url).href });
        const session = async (file, tensor) => {
            const made = await ort.InferenceSession.create(await read(file), { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
            return () => made.run({ [made.inputNames[0]]: tensor }).then((found) => found[made.outputNames[0]].data);
        };
        const shape = [1, 3, side, side];
        const engines = {
            "ours int8": async () => net.runLevels(levels).logits,
            "onnxruntime-web float32": await session("float32.onnx", new ort.Tensor("float32", new Float32Array(planes.buffer), shape)),
            "onnxruntime-web int8": await session("int8.onnx", new ort.Tensor("uint8", await read("input.bin"), shape)),
        };
        const names = Object.keys(engines), taken = Object.fromEntries(names.map((name) => [name, []])), answers = {};
        for (const name of names) for (let i = 0; i < WARM; i++) answers[name] = [...(await engines[name]())];
        for (let turn = 0; turn < runs; turn++)
            for (let i = 0; i < names.length; i++) {
                const name = names[(turn + i) % names.length], begun = performance.now();
                await engines[name]();
                taken[name].push(performance.now() - begun);
            }
        postMessage({ taken, answers });
    } catch (error) {
        postMessage({ error: String(error.stack ?? error) });
    }
};
