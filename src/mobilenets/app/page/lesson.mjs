/* What was taught on this device: classes with their examples, the head that was learned of them, files of it. */
import { kept, keep } from "./store.mjs";
import { ask, fetched } from "./network.mjs";
import { body, read, write } from "./file.mjs";

const MOST_UNDO = 20, LAST = "taught with";
let own, state = { classes: [], head: null, names: [] }, past = [], turn = Promise.resolve();

export const lesson = () => state;
export const undoable = () => past.length > 0;
/** The digest of the network that something is taught with, if anything is. */
export const last = () => kept(LAST);

/** What was kept of an earlier day, for the network that is used. */
export async function begin(network) {
    own = network;
    state = (await kept(`lesson ${own.variant.digest}`)) ?? state;
}

/* One after another, so that none meets another's half. */
function queued(what) {
    const done = turn.then(what);
    turn = done.catch(() => {});
    return done;
}

/** Changes the lesson by a function of its classes, so that it can be undone, and learns it anew; gives null, or the name of a text that says why it is not kept. */
export const change = (what, others = {}) => queued(async () => {
    const before = state, classes = state.classes.map((one) => ({ ...one, examples: [...one.examples] }));
    what(classes);
    state = await learned({ ...state, classes, ...others });
    past = [...past.slice(1 - MOST_UNDO), before];
    return keeping();
});

export const undo = () => queued(() => {
    if (past.length) state = past.pop();
    return keeping();
});

/* With a head of its own, where there is enough to learn from. */
async function learned(next) {
    const full = next.classes.filter(({ examples }) => examples.length);
    if (full.length < 2) return next.imported ? next : { ...next, head: null, names: [] };
    const features = full.flatMap(({ examples }) => examples.map((one) => one.features));
    const classes = full.flatMap(({ examples }, c) => examples.map(() => c));
    const { head, ms } = await ask("learn", { features, classes, count: full.length });
    return { ...next, head, names: full.map(({ name }) => name), ms, count: features.length, imported: null };
}

async function keeping() {
    const empty = !state.head && !state.classes.length;
    if (!empty) navigator.storage?.persist?.().catch(() => {});
    return (await keep(`lesson ${own.variant.digest}`, state)) ?? keep(LAST, empty ? null : own.variant.digest);
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

/** Takes the head of a model file that was saved by this app, as `change` does; throws { trouble, … } where it is another's. */
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
    return change((classes) => classes.splice(0), { head, names: meta.labels, imported: file.name });
}
