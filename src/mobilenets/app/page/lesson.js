/* What was taught on this device: classes with their examples, the head that was learned of them, files of it. */
import { kept, keep } from "./store.js";
import { askAside, fetched } from "./network.js";
import { body, read, write } from "./file.js";

const MOST_UNDO = 20, LAST = "taught with";
/** Given where a newer change learns and keeps what this one would have. */
export const LATER = "later";
let own, state = { classes: [], head: null, names: [], stale: false }, past = [], number = 0, learning = Promise.resolve(), asked = null;

export const lesson = () => state;
export const undoable = () => past.length > 0;
/** The digest of the network that something is taught with, if anything is. */
export const last = () => kept(LAST);

/** What was kept of an earlier day, for the network that is used. */
export async function begin(network) {
    const again = own?.variant.digest === network.variant.digest;
    own = network;
    const before = again ? null : await kept(`lesson ${own.variant.digest}`); // what is at hand may be newer than what could be kept
    if (before) {
        ({ state } = before);
        past = before.undo ? [before.undo] : [];
    }
    if (state.stale) await settled(before?.undo ?? null).catch(() => {}); // the next change tries again
}

/**
 * Changes the lesson by a function of its classes, at once and so that it can be undone, and learns it anew; gives null, LATER
 * or the name of a text that says why it is not kept.
 */
export function change(what, others = {}) {
    const before = state, classes = state.classes.map((one) => ({ ...one, examples: [...one.examples] })), total = examples();
    what(classes);
    state = { ...state, stale: true, classes, ...others };
    past = [...past.slice(1 - MOST_UNDO), before];
    return settled(examples() < total ? before : null);
}
export function undo() {
    if (past.length) state = past.pop();
    return settled(null);
}
/* One window keeps what is taught: two would write over each other's. Whether another one does. */
const elsewhere = new Promise((done) => {
    if (!navigator.locks) return done(false);
    navigator.locks.request(`lesson ${location.pathname}`, { ifAvailable: true }, (own) => (done(!own), own && new Promise(() => {})));
});
const examples = () => state.classes.reduce((sum, one) => sum + one.examples.length, 0);

/* Keeps the lesson, learns it where it was changed, and keeps what was learned. `lost`, of which examples are gone, can be undone another day too. */
function settled(lost) {
    const mine = ++number, first = keeping(lost);
    return (learning = learning.catch(() => {}).then(async () => {
        if (mine === number && state.stale) {
            const head = await learned(state);
            if (mine === number) {
                state = { ...state, ...head, stale: false };
                return keeping(lost);
            }
        }
        return mine === number ? first : LATER;
    }));
}

/* A head, where there is enough to learn from. */
async function learned({ classes: all, imported, head, names }) {
    const full = all.filter((one) => one.examples.length);
    if (full.length < 2) return imported ? { head, names } : { head: null, names: [] };
    const features = full.flatMap((one) => one.examples.map((example) => example.features));
    const classes = full.flatMap((one, c) => one.examples.map(() => c));
    const found = await askAside("learn", { features, classes, count: full.length });
    return { head: found.head, names: full.map(({ name }) => name), ms: found.ms, count: features.length, imported: null };
}

async function keeping(lost) {
    if (await elsewhere) return "elsewhere";
    const empty = !state.head && !state.classes.length;
    if (!empty && !asked) asked = navigator.storage?.persist?.().catch(() => {}) ?? true;
    return (await keep(`lesson ${own.variant.digest}`, { state, undo: lost })) ?? keep(LAST, empty ? null : own.variant.digest);
}

/** The bytes of a model file: the app's body with a head, the one that was learned here unless another is given. */
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

/** Takes the head of a model file of this app, as `change` does; throws { trouble, … } where it is another's. */
export async function imported(file) {
    const { meta, tensors } = await read(new Uint8Array(await file.arrayBuffer()));
    const { labels } = meta, foreign = { trouble: "foreign", name: file.name };
    if (!Array.isArray(labels) || !labels.length || labels.some((one) => typeof one !== "string")) throw { trouble: "damaged", why: "it names no classes" };
    if (how(meta) !== how(own.model.taught)) throw foreign;
    const count = labels.length, empty = { weights: new Float32Array(count * own.model.channels), bias: new Float32Array(count) };
    const mine = await read(await exported(labels, empty));
    for (const [name, { dtype, shape, bytes }] of Object.entries(mine.tensors)) {
        const given = tensors[name], alike = given?.dtype === dtype && String(given.shape) === String(shape) && given.bytes.length === bytes.length;
        if (!alike || !(name.startsWith("head.") || bytes.every((byte, i) => byte === given.bytes[i]))) throw foreign;
    }
    const floats = (name) => new Float32Array(tensors[name].bytes.buffer);
    const head = { weights: floats("head.weight"), bias: floats("head.bias") };
    if (![...head.weights, ...head.bias].every(Number.isFinite)) throw { trouble: "damaged", why: "its head holds values that are no numbers" };
    return change((classes) => classes.splice(0), { head, names: labels, imported: file.name });
}
/* What a file says of its network and of how pictures are prepared for it, whatever its classes. */
const how = ({ preprocess, net, scales }) => JSON.stringify([preprocess, scales, net?.nodes?.map((node) => (node.name === "head" ? { ...node, out: 0 } : node))]);
