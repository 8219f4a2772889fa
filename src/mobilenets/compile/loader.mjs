/* @about@
 * Digest @digest@. Written by mobilenets, for browsers and Node.
 *
 *     import { load } from "./@name@.mjs";
 *     const net = await load();
 *     const { logits } = net.run(pixels, width, height); // RGB or RGBA bytes, row after row
 *     const best = net.labels[logits.indexOf(Math.max(...logits))];
 *
 * A module built with threads takes `load({ threads: 4 })`: one is the caller, the others are Workers. A page has
 * them only with the headers `Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy:
 * require-corp`. While `run` waits for them it spins: a page that must not stand still calls it from a Worker.
 */

const THREADS = @shared@;
const PAGE = 65536, FIRST_PAGES = 64, MOST_PAGES = 8192; // as the linker was told
const LARGEST = 8192; // side of a frame
const STACK = 1 << 16;
const WIDTH = @width@, HEIGHT = @height@;
const HERE = import.meta.url;
const ERRORS = {
    "-1": "a null pointer",
    "-2": "a frame of sides below 1 or above 8192",
    "-3": "its memory is too small",
    "-4": "a number of threads that cannot be had",
    "-5": "weights of another model",
    "-6": "an instruction set that is not there",
};

/** Digest of network, weights and preprocessing. */
export const digest = "@digest@";
const PART = `a part of ${digest}`;
const node = globalThis.process?.versions?.node ? await import("node:worker_threads") : null;

/**
 * Loads module and weights; each may be a URL, a Response or bytes, and lies beside this file unless given. A module
 * built without threads, of the same network, wants `shared: false` where this file is of one built with them.
 */
export async function load({ threads = 1, module, weights, shared = THREADS } = {}) {
    if (!Number.isInteger(threads) || threads < 1 || (threads > 1 && !shared)) throw new RangeError(`@name@: ${threads} threads cannot be had`);
    const parts = [bytes(module ?? new URL("./@name@.wasm", HERE)), bytes(weights ?? new URL("./@name@.weights", HERE))];
    const [code, values] = await Promise.all(parts);
    if (values.byteLength !== @weight_bytes@) throw new RangeError("@name@.weights: not as long as it should be");
    const compiled = await WebAssembly.compile(code);
    const memory = new WebAssembly.Memory({ initial: FIRST_PAGES, maximum: MOST_PAGES, shared });
    const { exports } = await WebAssembly.instantiate(compiled, { env: { memory } });

    const reach = (end) => {
        const lacking = Math.ceil((end - memory.buffer.byteLength) / PAGE);
        if (lacking > 0) memory.grow(lacking);
    };
    let end = exports.__heap_base.value;
    const room = (size) => {
        const at = Math.ceil(end / 64) * 64;
        reach((end = at + size));
        return at;
    };
    const weightsAt = room(values.byteLength);
    new Uint8Array(memory.buffer).set(values, weightsAt);
    const arenaBytes = exports.@name@_arena_size(LARGEST, LARGEST, threads);
    const arenaAt = room(arenaBytes), madeAt = room(4);
    const stacks = Array.from({ length: threads - 1 }, () => room(STACK) + STACK);
    const frameAt = room(12 * WIDTH * HEIGHT); // last: frames may be larger
    check(exports.@name@_init(madeAt, arenaAt, arenaBytes, weightsAt, LARGEST, LARGEST, threads));
    let net = new DataView(memory.buffer).getInt32(madeAt, true);
    const workers = await Promise.all(stacks.map((stack, i) => started({ compiled, memory, stack, net, part: i + 1 })));

    const text = (at) => {
        const all = new Uint8Array(memory.buffer);
        return new TextDecoder().decode(all.slice(at, all.indexOf(0, at)));
    };
    const word = (at) => new DataView(memory.buffer).getInt32(at, true);
    const outputs = Array.from({ length: @outputs@ }, (_, i) => {
        const at = exports.@name@_outputs() + 52 * i; // struct @name@_output of @name@.h
        const shape = Array.from({ length: word(at + 8) }, (_, axis) => word(at + 12 + 4 * axis));
        const scale = new DataView(memory.buffer).getFloat32(at + 28, true), zero = word(at + 32);
        const places = shape.reduce((before, side, axis) => before.flatMap((place) =>
            Array.from({ length: side }, (_, i) => place + i * word(at + 36 + 4 * axis))), [0]);
        return { name: text(word(at)), dtype: text(word(at + 4)), shape, scale, zero, places, at: exports.@name@_output(net, i) };
    });
    const made = () => Object.fromEntries(outputs.map(({ name, dtype, scale, zero, places, at }) => {
        const from = dtype === "float32" ? new Float32Array(memory.buffer, at) : new Uint8Array(memory.buffer, at);
        const values = new Float32Array(places.length);
        for (let i = 0; i < values.length; i++) values[i] = scale * (from[places[i]] - zero); // 1 and 0 for floats
        return [name, values];
    }));

    return {
        width: WIDTH,
        height: HEIGHT,
        outputs: outputs.map(({ name, dtype, shape, scale, zero }) => ({ name, dtype, shape, scale, zero })),
        labels: Array.from({ length: @labels@ }, (_, i) => text(exports.@name@_label(i))),
        about: JSON.parse(text(exports.@name@_about())),
        /** Outputs by name, float32, for a frame of RGB or RGBA bytes. */
        run(pixels, width, height) {
            const size = width * height;
            if (pixels?.length === undefined) throw new TypeError("a frame is an array of bytes");
            if (pixels.length !== 3 * size && pixels.length !== 4 * size)
                throw new RangeError(`a frame of ${width} × ${height} has ${3 * size} bytes of RGB, or ${4 * size} of RGBA`);
            if (!(width <= LARGEST && height <= LARGEST)) check(-2);
            reach(frameAt + 3 * size);
            const frame = new Uint8Array(memory.buffer, frameAt, 3 * size);
            if (pixels.length === 3 * size) frame.set(pixels);
            else
                for (let to = 0, from = 0; to < frame.length; to += 3, from += 4) {
                    frame[to] = pixels[from];
                    frame[to + 1] = pixels[from + 1];
                    frame[to + 2] = pixels[from + 2];
                }
            check(exports.@name@_run(net, frameAt, width, height, 3 * width));
            return made();
        },
        /** Outputs by name for a picture that has the input's size already: HEIGHT × WIDTH × 3 bytes, nothing cut off. */
        runLevels(levels) {
            if (levels?.length !== 3 * WIDTH * HEIGHT) throw new RangeError(`an input has ${3 * WIDTH * HEIGHT} bytes`);
            new Uint8Array(memory.buffer, frameAt, levels.length).set(levels);
            check(exports.@name@_run_levels(net, frameAt));
            return made();
        },
        /** Outputs by name for an input that is prepared and normalised: HEIGHT × WIDTH × 3 floats. */
        runInput(values) {
            if (values?.length !== 3 * WIDTH * HEIGHT) throw new RangeError(`an input has ${3 * WIDTH * HEIGHT} floats`);
            new Float32Array(memory.buffer, frameAt, values.length).set(values);
            check(exports.@name@_run_input(net, frameAt));
            return made();
        },
        /** Run by another instruction set, of those that `about.isas` names. */
        use(isa) {
            const name = new TextEncoder().encode(`${isa}\0`);
            reach(frameAt + name.length);
            new Uint8Array(memory.buffer).set(name, frameAt);
            check(exports.@name@_use(net, frameAt));
        },
        /** Ends its Workers. */
        close() {
            exports.@name@_free(net);
            net = 0; // a run after this is refused
            for (const worker of workers) worker.terminate();
        },
    };
}

function check(code) {
    if (code) throw new RangeError(`@name@: ${ERRORS[code] ?? `error ${code}`}`);
}

async function bytes(source) {
    if (source instanceof URL && source.protocol === "file:") {
        const { readFile } = await import("node:fs/promises");
        return readFile(source);
    }
    if (source instanceof ArrayBuffer) return new Uint8Array(source);
    if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
    const response = source instanceof Response ? source : await fetch(source);
    if (!response.ok) throw new Error(`${response.url}: ${response.status} ${response.statusText}`);
    return new Uint8Array(await response.arrayBuffer());
}

/* This file again, in a Worker that runs a part of each picture. */
async function started(own) {
    const url = new URL("#worker", HERE);
    const worker = node ? new node.Worker(url, { workerData: PART }) : new Worker(url, { type: "module" });
    await new Promise((ready, failed) => {
        if (node) {
            worker.once("message", ready);
            worker.once("error", failed);
        } else {
            worker.onmessage = ready;
            worker.onerror = failed;
        }
        worker.postMessage(own);
    });
    worker.unref?.(); // Node ends though they wait
    return worker;
}

if (node ? node.workerData === PART : HERE.endsWith("#worker")) {
    const port = node ? node.parentPort : self;
    const serve = ({ compiled, memory, stack, net, part }) => {
        const { exports } = new WebAssembly.Instance(compiled, { env: { memory } });
        exports.__stack_pointer.value = stack;
        port.postMessage("ready");
        exports.@name@_work(net, part);
    };
    if (node) port.once("message", serve);
    else port.onmessage = (event) => serve(event.data);
}
