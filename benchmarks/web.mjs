/* One engine of web.py in a process:  node web.mjs ENGINE FILE INPUT SIDE NODE_MODULES turns
 * Answers as mobilenets.bench.worker does: a line after the first answer, one with it, then a line of seconds for
 * each line of standard input, a turn's length. `ours` takes a compiled model's loader, `onnxruntime-web` ONNX. */
import { readFileSync, writeSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { createInterface } from "node:readline";

const [engine, file, input, sides, packages] = process.argv.slice(2), side = Number(sides);
const WARM = 8, LEAST_WARM = 2, LEAST_CALLS = 3; // as in mobilenets/bench/worker.py
const SETTLE_CALLS = 25, SETTLE_MS = 300; // until V8 has compiled what is called often with its better compiler
const bytes = new Uint8Array(readFileSync(input));
const values = () => new Float32Array(bytes.buffer);

async function ours() {
    const net = await (await import(pathToFileURL(file))).load();
    if (bytes.length === side * side * 3) return () => Object.values(net.runLevels(bytes))[0];
    const prepared = values();
    return () => Object.values(net.runInput(prepared))[0];
}

async function onnxruntime() {
    const ort = await import(pathToFileURL(`${packages}/onnxruntime-web/dist/ort.wasm.bundle.min.mjs`));
    Object.assign(ort.env.wasm, { numThreads: 1, simd: true });
    const session = await ort.InferenceSession.create(readFileSync(file), {
        executionProviders: ["wasm"],
        graphOptimizationLevel: "all",
        executionMode: "sequential",
    });
    const feeds = { image: new ort.Tensor("float32", values(), [1, 3, side, side]) };
    return async () => (await session.run(feeds)).output.data;
}

const tell = (value) => writeSync(1, `${JSON.stringify(value)}\n`);
const run = await (engine === "ours" ? ours() : onnxruntime());
const answer = Array.from(await run());
tell("first");
for (let i = 0; i < SETTLE_CALLS; i++) await run();
await setTimeout(SETTLE_MS);
tell({ answer });
for await (const line of createInterface({ input: process.stdin })) {
    const limit = 1e3 * Number(line), taken = [];
    let begun = performance.now();
    for (let warm = 0; warm < LEAST_WARM || performance.now() - begun < limit / WARM; warm++) await run();
    const start = performance.now();
    while (taken.length < LEAST_CALLS || performance.now() - start < limit) {
        begun = performance.now();
        await run();
        taken.push((performance.now() - begun) / 1e3);
    }
    tell(taken);
}
