/* Runs @name@ on what comes by standard input:  node harness.mjs @name@.mjs THREADS
 * A request is three int32 (kind, width, height) and its bytes: 0 a frame, 1 a prepared input, 2 the name of an
 * instruction set, `width` long. The answer is an error code and, where that is 0, every output's floats. */
import { readSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";

const RUN = 0, INPUT = 1, USE = 2;
const [loader, threads] = process.argv.slice(2);
const { load } = await import(pathToFileURL(loader));
const net = await load({ threads: Number(threads) });

function read(size) {
    const all = new Uint8Array(size);
    for (let at = 0; at < size; ) {
        const got = readSync(0, all, at, size - at);
        if (!got) process.exit(0);
        at += got;
    }
    return all;
}

function write(bytes) {
    for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);
}

function answer(kind, width, height) {
    if (kind === RUN) return net.run(read(width * height * 3), width, height);
    if (kind === INPUT) return net.runInput(new Float32Array(read(net.width * net.height * 12).buffer));
    const isa = new TextDecoder().decode(read(width));
    net.use(isa);
    return {};
}

for (;;) {
    const [kind, width, height] = new Int32Array(read(12).buffer);
    let outputs = {}, code = 0;
    try {
        outputs = answer(kind, width, height);
    } catch (error) {
        console.error(error.message);
        code = kind === USE ? -6 : -2;
    }
    write(new Uint8Array(Int32Array.of(code).buffer));
    for (const values of Object.values(outputs)) write(new Uint8Array(values.buffer));
}
