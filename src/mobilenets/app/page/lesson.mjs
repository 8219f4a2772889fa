/* What was taught on this device: classes with their examples, the head that was learned of them, files of it. */
import { kept, keep } from "./store.mjs";
import { ask, fetched } from "./network.mjs";
import { body, read, write } from "./file.mjs";

const MOST_UNDO = 20;
let own, state = { classes: [], head: null, names: [] }, past = [];

export const lesson = () => state;
export const undoable = () => past.length > 0;

/** What was kept of an earlier day, for the network that is used. */
export async function begin(network) {
    own = network;
    const before = await kept(`lesson ${own.variant.digest}`);
    if (before) state = before;
    await ask("use", { head: state.head });
}

/** Changes the lesson, so that it can be undone; gives whether it could be kept. */
export async function change(what, head = null) {
    past = [...past.slice(1 - MOST_UNDO), state];
    state = { ...state, classes: state.classes.map((one) => ({ ...one, examples: [...one.examples] })), ...head };
    what(state.classes);
    return settle();
}

export async function undo() {
    state = past.pop();
    return settle();
}

/* Learns anew where there is enough to learn from. */
async function settle() {
    const full = state.classes.filter(({ examples }) => examples.length);
    if (full.length >= 2) {
        const features = full.flatMap(({ examples }) => examples.map((one) => one.features));
        const classes = full.flatMap(({ examples }, c) => examples.map(() => c));
        const { head, ms } = await ask("learn", { features, classes, count: full.length });
        state = { ...state, head, names: full.map(({ name }) => name), ms, learned: features.length, imported: false };
    } else if (!state.imported) state = { ...state, head: null, names: [] };
    await ask("use", { head: state.head });
    return keep(`lesson ${own.variant.digest}`, state);
}

/** The body of the app with a head, as the bytes of a model file: the head that was learned here unless another is given. */
export async function exported(names = state.names, { weights, bias } = state.head) {
    const { model, folder } = own;
    const [packed, rest] = await Promise.all(["net.weights", "rest.bin"].map((file) => fetched(`${folder}/${file}`, "arrayBuffer")));
    const tensors = body(model, new Uint8Array(packed), new Uint8Array(rest)), bytes = (values) => new Uint8Array(values.buffer.slice(0));
    tensors["head.weight"] = { dtype: "F32", shape: [names.length, model.channels], bytes: bytes(weights) };
    tensors["head.bias"] = { dtype: "F32", shape: [names.length], bytes: bytes(bias) };
    const meta = structuredClone(model.taught);
    meta.net.nodes.find(({ name }) => name === "head").out = names.length;
    meta.labels = names;
    meta.threshold = null; // that of the app's own classes says nothing of these
    meta.recipe.taught = Object.fromEntries(state.classes.map(({ name, examples }) => [name, examples.length]));
    return write(meta, tensors);
}

/** Takes the head of a model file that was saved by this app; throws { trouble, … } where it is another's. */
export async function imported(file) {
    const { meta, tensors } = await read(new Uint8Array(await file.arrayBuffer()));
    const count = meta.labels.length, empty = { weights: new Float32Array(count * own.model.channels), bias: new Float32Array(count) };
    const mine = await read(await exported(meta.labels, empty));
    const other = (why) => Object.assign(new Error(why), { trouble: "damaged", why });
    const heads = (name) => name.startsWith("head."), names = Object.keys(mine.tensors).sort((a, b) => heads(a) - heads(b));
    for (const name of names) {
        const { dtype, shape, bytes } = mine.tensors[name];
        const given = tensors[name];
        if (given?.dtype !== dtype || String(given.shape) !== String(shape) || given.bytes.length !== bytes.length) throw other(`${name} is missing or of another shape`);
        if (!heads(name) && !bytes.every((byte, i) => byte === given.bytes[i])) throw other(`${name} is another network's`);
    }
    const floats = (name) => new Float32Array(tensors[name].bytes.buffer);
    const head = { weights: floats("head.weight"), bias: floats("head.bias") };
    const kept = await change((classes) => classes.splice(0), { head, names: meta.labels, imported: true });
    return { kept, names: meta.labels };
}
