/* Model files: safetensors with a seal, as docs/artefact.md of mobilenets describes them. */

const FORMAT = 1;
const TYPES = { I8: Int8Array, I32: Int32Array, F32: Float32Array };
const text = new TextEncoder();

/** What is in a file { meta, tensors: { name: { dtype, shape, bytes } } }; throws { trouble, … } where it is not whole. */
export async function read(file) {
    const damaged = (why) => ({ trouble: "damaged", why });
    if (file.length < 8) throw damaged("too short");
    const view = new DataView(file.buffer, file.byteOffset, file.length);
    const length = Number(view.getBigUint64(0, true));
    let top, meta;
    try {
        top = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(file.subarray(8, 8 + length)));
        meta = JSON.parse(top.__metadata__.mobilenets);
    } catch {
        throw damaged("no header of a model");
    }
    const told = top.__metadata__;
    delete top.__metadata__;
    if (await seal(told.mobilenets, top, file.subarray(8 + length)) !== told.sha256) throw damaged("its digest does not match");
    if (meta.format !== FORMAT) throw { trouble: "newer", format: meta.format };
    const tensors = {};
    for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(top))
        tensors[name] = { dtype, shape, bytes: file.slice(8 + length + from, 8 + length + to) };
    return { meta, tensors };
}

/** The bytes of a file. */
export async function write(meta, tensors) {
    const names = Object.keys(tensors).sort((a, b) =>
        size(tensors[b]) - size(tensors[a]) || (a < b ? -1 : 1)); // the widest first: all aligned, without gaps
    const table = {};
    let end = 0;
    for (const name of names) {
        const { dtype, shape, bytes } = tensors[name];
        table[name] = { dtype, shape, data_offsets: [end, (end += bytes.length)] };
    }
    const body = new Uint8Array(end), told = JSON.stringify(meta);
    for (const name of names) body.set(tensors[name].bytes, table[name].data_offsets[0]);
    const sha256 = await seal(told, table, body);
    const said = JSON.stringify({ __metadata__: { mobilenets: told, sha256 }, ...table });
    const header = text.encode(said + " ".repeat(-text.encode(said).length & 7));
    const file = new Uint8Array(8 + header.length + end);
    new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
    file.set(header, 8);
    file.set(body, 8 + header.length);
    return file;
}

const size = ({ dtype }) => TYPES[dtype].BYTES_PER_ELEMENT;

async function seal(told, table, body) {
    if (!globalThis.crypto?.subtle) throw { trouble: "unsealed" };
    const rows = Object.entries(table)
        .sort(([a, { data_offsets: [p, q] }], [b, { data_offsets: [r, s] }]) => p - r || q - s || (a < b ? -1 : 1))
        .map(([name, { dtype, shape, data_offsets: [from, to] }]) => `${[name, dtype, shape.join(","), from, to].join("\t")}\n`);
    const digest = await crypto.subtle.digest("SHA-256", await new Blob([`${told}\n`, ...rows, body]).arrayBuffer());
    return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The tensors of the app's own body: out of its packed weights, or of `more` what those lack. */
export function body({ tensors }, packed, more) {
    const found = {};
    for (const { name, dtype, shape, copies, at } of tensors) {
        const bytes = new Uint8Array(shape.reduce((a, b) => a * b, 1) * TYPES[dtype].BYTES_PER_ELEMENT);
        if (copies) for (const one of copies) copy(packed, one, bytes);
        else bytes.set(more.subarray(at, at + bytes.length));
        found[name] = { dtype, shape, bytes };
    }
    return found;
}

/* A byte for each combination of places along the axes: [how many, how far apart there, and here]. */
function copy(from, [at, to, axes], into) {
    const [[count, there, here], ...others] = axes;
    for (let i = 0; i < count; i++)
        if (others.length) copy(from, [at + i * there, to + i * here, others], into);
        else into[to + i * here] = from[at + i * there];
}
