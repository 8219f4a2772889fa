/* Where classes are taught: a row for each, what is collected for it, and what a person is told of it. */
import { $, choose, give, say, sentence, worded } from "./page.js";
import { draw, taken, thumbnail } from "./camera.js";
import * as teacher from "./lesson.js";
import { ask } from "./network.js";

const BURST = 10, PACE_MS = 80, MOST_THUMBS = 12, MOST_NAMED = 6;
const rows = new Map(); // by the id of their class
let collecting = null, look; // { id, button, most, found, at }; what the page does when the lesson is another, and where it looks

const told = (text) => ($("told").textContent = text);

/** Begins with what was taught before. `page` tells { live(), anything() } and looks again(). */
export async function begin(network, page, taught) {
    look = page;
    await teacher.begin(network);
    shown(teacher.lesson().head || !taught || taught === network.variant.digest ? null : "earlier");
}

/** The head that answers, with the names of its classes, where a person wants that one to. */
export function mine() {
    const { head, names } = teacher.lesson();
    return head && $("mine").checked ? { head, names } : null;
}

async function changed(done) {
    shown("learning");
    try {
        const word = await done;
        if (word !== teacher.LATER) shown(word);
    } catch (error) {
        shown();
        told(sentence(error));
    }
}

function shown(word = null) {
    const { classes, head, stale } = teacher.lesson();
    for (const [id, row] of rows)
        if (!classes.some((one) => one.id === id)) {
            if (row.contains(document.activeElement)) $("new").focus();
            row.remove();
            rows.delete(id);
        }
    classes.forEach((one, place) => {
        const row = rows.get(one.id) ?? made(one.id), there = $("classes").children[place];
        if (there !== row) $("classes").insertBefore(row, there ?? null); // what has not moved keeps the focus
        filled(row, one);
    });
    if (!head) $("own").checked = true;
    else if ($("mine").disabled) $("mine").checked = true;
    $("mine").disabled = !head;
    $("export").disabled = !head || stale;
    $("undo").disabled = !teacher.undoable();
    told(word ? say(word) : summary());
    look.again();
}

function summary() {
    const { head, ms, count, imported, names } = teacher.lesson();
    if (imported) {
        const classes = names.slice(0, MOST_NAMED).join(", ") + (names.length > MOST_NAMED ? ` … (${names.length})` : "");
        return `${say("imported", { name: imported, classes })} ${say("importedFew")}`;
    }
    return head ? say("learned", { n: count, s: +(ms / 1000).toPrecision(2) }) : say("twoClasses");
}

/* A row of its own for a class, which stays while the class does. */
function made(id) {
    const row = $("class").content.cloneNode(true).firstElementChild, one = (kind) => row.querySelector(`.${kind}`);
    worded(row);
    rows.set(id, row);
    one("name").onchange = ({ target }) => {
        const { classes } = teacher.lesson(), name = target.value.trim();
        const before = classes.find((own) => own.id === id).name, there = name !== before && classes.some((one) => one.name === name);
        if (name && name !== before && !there) return changed(teacher.change((all) => to(all, id, (own) => (own.name = name))));
        target.value = before;
        told(there ? say("sameName", { name }) : summary());
    };
    one("remove").onclick = () => changed(teacher.change((all) => to(all, id, (own) => all.splice(all.indexOf(own), 1))));
    one("files").onclick = async () => fromFiles(id, await choose("image/*", true));
    held(one("hold"), id);
    return row;
}
function filled(row, { name, examples }) {
    const one = (kind) => row.querySelector(`.${kind}`);
    if (one("name") !== document.activeElement) one("name").value = name;
    one("count").textContent = say("examples", { n: examples.length });
    for (const button of row.querySelectorAll("button")) button.setAttribute("aria-label", `${button.textContent}: ${name}`);
    if (row.dataset.n === String(examples.length)) return;
    row.dataset.n = examples.length;
    const thumbs = examples.map(({ thumb }) => thumb).filter(Boolean).slice(-MOST_THUMBS);
    one("thumbs").replaceChildren(...thumbs.map((thumb) => {
        const picture = Object.assign(new Image(), { src: URL.createObjectURL(new Blob([thumb])), onload: () => URL.revokeObjectURL(picture.src) });
        return picture;
    }));
}
/* Does something to a class, if it is still there. */
function to(classes, id, what) {
    const own = classes.find((one) => one.id === id);
    if (own) what(own);
}
const added = (id, found) => changed(teacher.change((classes) => to(classes, id, (own) => own.examples.push(...found))));

/* Collecting: while a button is held, by finger, mouse or key; a mere click, as a screen reader makes, takes a few. */
export const collected = () => collecting;
/** An example, for what was collected when its frame was taken. */
export function collect(example, before) {
    if (!collecting || collecting !== before) return;
    const { id, found, at, most } = collecting, now = performance.now();
    if (now - at < PACE_MS) return; // frames of a moment are all alike
    collecting.at = now;
    found.push(example);
    const own = teacher.lesson().classes.find((one) => one.id === id);
    if (own) rows.get(id).querySelector(".count").textContent = say("examples", { n: own.examples.length + found.length });
    if (found.length >= most) release();
}
/** Ends collecting: what was collected is learned. */
export function release() {
    if (!collecting) return;
    const { id, button, found } = collecting;
    collecting = null;
    button.classList.remove("on");
    if (found.length) added(id, found);
}
function held(button, id) {
    let keyed = false;
    const begun = (most = Infinity) => {
        release();
        if (!look.anything()) return told(say("nothing"));
        collecting = { id, button, most, found: [], at: -Infinity };
        button.classList.add("on");
        if (!look.live()) look.again().then(ended);
    };
    const ended = () => {
        if (collecting?.button !== button) return;
        if (collecting.found.length || !look.live()) release();
        else collecting.most = 1; // a tap takes the frame that comes
    };
    button.onpointerdown = (event) => (button.setPointerCapture(event.pointerId), begun());
    button.onpointerup = button.onpointercancel = button.onlostpointercapture = button.onblur = () => void ended();
    button.onkeydown = ({ key, repeat }) => { // gives nothing back: false would hold the focus here
        if ((key !== " " && key !== "Enter") || repeat) return;
        keyed = true;
        begun();
    };
    button.onkeyup = () => void ended();
    button.oncontextmenu = (event) => event.preventDefault();
    button.onclick = ({ detail }) => {
        if (!detail && !keyed && !collecting) begun(BURST);
        keyed = false; // the click that follows a key
    };
}
async function fromFiles(id, files) {
    let word = null;
    const found = [], bad = [], canvas = document.createElement("canvas");
    try {
        for (const file of files) {
            const readable = await draw(file, canvas).then(() => true, () => false);
            if (readable) {
                const { pixels, width, height } = taken(canvas), thumb = thumbnail();
                const { features } = await ask("frame", { pixels: pixels.buffer, width, height }, [pixels.buffer]);
                found.push({ features, thumb: await thumb });
            } else bad.push(file.name);
            told(`${found.length + bad.length} / ${files.length}`);
        }
    } catch (error) {
        word = sentence(error);
    }
    if (found.length) await added(id, found);
    if (bad.length) word ??= say("noPicture", { name: bad.join(", ") });
    if (word) told(word);
}

/** Takes what a model file of this app was taught. */
export async function opened([file]) {
    if (file) await changed(teacher.imported(file));
}
async function saved() {
    try {
        const said = await give(new Blob([await teacher.exported()]), `${document.title.replace(/[^\p{L}\p{N}]+/gu, "-")}.safetensors`);
        if (said) told(said);
    } catch (error) {
        told(sentence(error));
    }
}
/* A class with the first name that is not taken. */
function another(classes) {
    let n = classes.length + 1;
    while (classes.some(({ name }) => name === say("unnamed", { n }))) n++;
    classes.push({ id: Math.random(), name: say("unnamed", { n }), examples: [] });
}
$("new").onclick = () => changed(teacher.change(another));
$("undo").onclick = () => changed(teacher.undo());
$("export").onclick = saved;
$("import").onclick = async () => opened(await choose("")); // phones know no such kind of file, and would offer none
addEventListener("pagehide", release);
