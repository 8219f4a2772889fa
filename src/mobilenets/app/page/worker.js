/* The network runs here, apart from the page, one frame at a time; so does the learning of a head. */
import { fit, logits } from "./head.js";

const WARM = 3, RUNS = 15, WIDTH = 640, HEIGHT = 480; // a camera's frame
const SIMD = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]);
let net = null;

const orders = {
    /** Loads a variant; gives how long a frame takes, in milliseconds. */
    async load({ folder, threads, measure }) {
        if (!WebAssembly.validate(SIMD)) return { trouble: "noSimd" };
        net?.close();
        net = null;
        const base = new URL(`${folder}/`, import.meta.url);
        const module = new URL(threads > 1 ? "threads.wasm" : "net.wasm", base);
        try {
            const { load } = await import(new URL("net.js", base));
            net = await load({ threads, module, shared: threads > 1 });
        } catch ({ message }) {
            return /memory/i.test(message) ? { trouble: "failed", why: message } : { trouble: "interrupted", file: `${folder}: ${message}` };
        }
        return { ms: measure ? pace() : null };
    },
    /** Scores of a frame of RGBA bytes, by the network's own head or by one that was learned here. */
    frame({ pixels, width, height, head }) {
        const begun = performance.now();
        const { logits: own, features } = net.run(new Uint8Array(pixels), width, height);
        const { dtype, scale } = net.outputs.find(({ name }) => name === "features"), step = dtype === "uint8" ? scale : 1;
        const found = head ? logits(head, dtype === "uint8" ? features.map((value) => Math.round(value / step)) : features, step) : own;
        return { logits: found, features, ms: performance.now() - begun };
    },
    /** A head for the features of examples, a class each. */
    learn({ features, classes, count }) {
        const begun = performance.now();
        return { head: fit(features, classes, count), ms: performance.now() - begun };
    },
};

function pace() {
    const pixels = new Uint8Array(4 * WIDTH * HEIGHT).fill(99), taken = [];
    for (let i = 0; i < WARM + RUNS; i++) {
        const begun = performance.now();
        net.run(pixels, WIDTH, HEIGHT);
        taken.push(performance.now() - begun);
    }
    return taken.slice(WARM).sort((a, b) => a - b)[Math.floor(0.9 * RUNS)];
}

self.onmessage = async ({ data: { order, number, ...given } }) => {
    try {
        self.postMessage({ number, ...(await orders[order](given)) });
    } catch (error) {
        self.postMessage({ number, trouble: "failed", why: String(error?.message ?? error) });
    }
};
