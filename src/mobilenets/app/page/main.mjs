/* The page: frames from a camera or a picture to the network, answers to the screen, lessons to `lesson.mjs`. */
import words from "./words.mjs";
import * as camera from "./camera.mjs";
import * as teacher from "./lesson.mjs";
import { ask, fetched, start } from "./network.mjs";
import { kept, keep } from "./store.mjs";

const $ = (id) => document.getElementById(id);
const say = (word, facts = {}) => words[word].replace(/\{(\w+)\}/g, (_, name) => facts[name] ?? "");
const STEADY = 0.25, SHOWN = 3, LATEST = 120, THUMB = 40, BURST = 10, MOST_THUMBS = 12;
const video = $("video"), still = $("still"), frame = document.createElement("canvas");
const inputs = Object.assign(document.createElement("input"), { type: "file" });
let network, origin = 0, live = false, busy = false, frozen = false, collecting = null, steady = null, taken = [];

/* Texts */
function worded(root) {
    for (const one of root.querySelectorAll("[data-word]")) one.textContent = say(one.dataset.word);
    for (const one of root.querySelectorAll("[data-label]")) one.setAttribute("aria-label", say(one.dataset.label));
}
const told = (text) => ($("told").textContent = text);
function trouble(word, facts, again) {
    $("why").textContent = say(word, facts);
    $("trouble").hidden = false;
    $("retry").hidden = !again;
    $("retry").onclick = () => {
        $("trouble").hidden = true;
        again();
    };
    $("label").textContent = "";
    $("bars").replaceChildren();
    $("pace").textContent = "";
}
const troubled = (error, again = null) => (error?.trouble ? trouble(error.trouble, error, again)
    : typeof error === "string" ? trouble(error, {}, again) : trouble("failed", { why: error?.message ?? error }, again));

/* Answers */
const ofMine = () => !$("whose").hidden && $("mine").checked && teacher.lesson().head;
function softmax(logits) {
    const top = Math.max(...logits), all = Array.from(logits, (v) => Math.exp(v - top));
    const sum = all.reduce((a, b) => a + b);
    return all.map((v) => v / sum);
}
function answered({ logits, ms }) {
    const mine = ofMine(), names = mine ? teacher.lesson().names : network.model.taught.labels;
    if (!$("smooth").checked || steady?.length !== logits.length || !live) steady = Array.from(logits);
    else steady = steady.map((v, i) => v + STEADY * (logits[i] - v));
    const scores = softmax(steady), order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]).slice(0, SHOWN);
    const threshold = mine ? null : network.model.taught.threshold;
    const label = threshold !== null && steady[order[0]] < threshold ? say("unsure") : names[order[0]];
    if ($("label").textContent !== label) $("label").textContent = label;
    $("share").disabled = false;
    while ($("bars").children.length > order.length) $("bars").lastChild.remove();
    order.forEach((index, place) => {
        let row = $("bars").children[place];
        if (!row) {
            row = $("bars").appendChild(document.createElement("li"));
            row.append(document.createElement("span"), document.createElement("span"), document.createElement("progress"));
        }
        const [name, share, bar] = row.children;
        name.textContent = names[index];
        share.textContent = `${(100 * scores[index]).toFixed(0)} %`;
        bar.value = scores[index];
        bar.setAttribute("aria-label", names[index]);
    });
    taken = [...taken, { ms, at: performance.now() }].slice(-LATEST);
    const sorted = taken.map((one) => one.ms).sort((a, b) => a - b), at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))].toFixed(1);
    const seconds = (taken.at(-1).at - taken[0].at) / 1000;
    $("pace").textContent = say("pace", { p50: at(0.5), p95: at(0.95), fps: seconds ? Math.round((taken.length - 1) / seconds) : 1 });
    return label;
}

/* Frames: the next is taken when the last has been answered; those in between are dropped. */
function pixels(source, width, height) {
    frame.width = width;
    frame.height = height;
    const drawn = frame.getContext("2d", { willReadFrequently: true });
    drawn.drawImage(source, 0, 0);
    return drawn.getImageData(0, 0, width, height).data;
}
async function look(source, width, height) {
    const seen = pixels(source, width, height), copy = globalThis.onseen && seen.slice(), whose = origin;
    const found = await ask("frame", { pixels: seen.buffer, width, height, taught: Boolean(ofMine()) }, [seen.buffer]);
    if (whose !== origin) return; // another camera or picture has come meanwhile
    const label = answered(found);
    globalThis.onseen?.({ pixels: copy, width, height, label, ...found }); // tests watch frames by it
    if (collecting) collecting.push({ features: found.features, thumb: await small(source, width, height) });
}
async function small(source, width, height) {
    const canvas = Object.assign(document.createElement("canvas"), { width: Math.round(THUMB * width / height), height: THUMB });
    canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.7));
}
function next() {
    if (!live) return;
    video.requestVideoFrameCallback ? video.requestVideoFrameCallback(tick) : requestAnimationFrame(tick);
}
async function tick() {
    next();
    if (!live || busy || frozen || document.hidden || !video.videoWidth) return;
    busy = true;
    try {
        await look(video, video.videoWidth, video.videoHeight);
    } catch (error) {
        stop();
        troubled(error, begin);
    }
    busy = false;
}

/* Where frames come from */
function stop() {
    live = false;
    origin++;
    $("freeze").hidden = $("flip").hidden = $("torch").hidden = $("share").disabled = true;
    camera.close();
}
async function filmed() {
    stop();
    try {
        const { several, torch } = await camera.open(video, () => (stop(), trouble("unplugged", {}, filmed)));
        $("flip").hidden = !several;
        $("torch").hidden = !torch;
    } catch (word) {
        return troubled(word, filmed);
    }
    $("trouble").hidden = still.hidden = $("camera").hidden = live = true;
    video.hidden = $("freeze").hidden = false;
    freeze(false);
    taken = [];
    next();
}
async function pictured(file) {
    if (!file || $("picture").disabled) return; // dropped before there was a network
    try {
        await camera.draw(file, still);
    } catch {
        return trouble("noPicture", { name: file.name }, filmed);
    }
    stop();
    $("trouble").hidden = video.hidden = true;
    still.hidden = $("camera").hidden = false;
    await again();
}
/* Looks anew at what stands still: a picture, or a frozen frame. */
async function again() {
    const source = still.hidden ? frozen && video : still;
    if (source) await look(source, source.width || source.videoWidth, source.height || source.videoHeight).catch(troubled);
}
function freeze(on) {
    frozen = on;
    $("freeze").setAttribute("aria-pressed", on);
    $("freeze").textContent = say(on ? "go" : "freeze");
    on ? video.pause() : video.srcObject && video.play();
}
const choose = (accept, many = false) => new Promise((done) => {
    Object.assign(inputs, { accept, multiple: many, value: "", onchange: () => done([...inputs.files]) });
    inputs.click();
});
async function share() {
    const [source, width, height] = still.hidden ? [video, video.videoWidth, video.videoHeight] : [still, still.width, still.height];
    if (!width) return;
    const shot = Object.assign(document.createElement("canvas"), { width, height: height + Math.round(height / 8) }), drawn = shot.getContext("2d");
    drawn.fillStyle = "#111417";
    drawn.fillRect(0, 0, shot.width, shot.height);
    drawn.drawImage(source, 0, 0);
    drawn.fillStyle = "#fff";
    drawn.font = `600 ${Math.round(height / 14)}px system-ui, sans-serif`;
    drawn.fillText(`${$("label").textContent}  ${$("bars").firstChild?.children[1].textContent ?? ""}`, height / 30, height * 1.085, width - height / 15);
    given(await new Promise((done) => shot.toBlob(done, "image/png")), `${$("label").textContent || "picture"}.png`, true);
}
async function given(blob, name, shared = false) {
    const file = new File([blob], name, { type: blob.type });
    if (shared && navigator.canShare?.({ files: [file] })) return navigator.share({ files: [file] }).catch(() => {});
    if (globalThis.saver) { // in the Android package, whose pages cannot save
        const text = await new Promise((done) => Object.assign(new FileReader(), { onload: ({ target }) => done(target.result) }).readAsDataURL(blob));
        return told(say(saver.save(name, text.slice(text.indexOf(",") + 1)) ? "saved" : "unsaved", { name }));
    }
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/* Teaching */
async function changed(what) {
    told(say("learning"));
    try {
        shown(await what());
    } catch (error) {
        troubled(error);
    }
}
function shown(isKept, text) {
    const { classes, head, ms, learned, imported, names } = teacher.lesson();
    $("classes").replaceChildren(...classes.map(drawn));
    $("undo").disabled = !teacher.undoable();
    $("export").disabled = $("whose").hidden = !head;
    if (head && !$("mine").checked) $("mine").checked = true;
    told(isKept === false ? say("full") : text ?? (imported && !classes.length ? say("imported", { name: "", classes: names.join(", ") })
        : head ? say("learned", { n: learned, s: (ms / 1000).toFixed(1) }) : say("twoClasses")));
    again();
}
function drawn({ name, examples }, index) {
    const row = $("class").content.cloneNode(true).firstElementChild, [label] = row.getElementsByClassName("name");
    worded(row);
    const one = (kind) => row.querySelector(`.${kind}`);
    label.value = name;
    label.onchange = () => changed(() => teacher.change((classes) => (classes[index].name = label.value.trim() || name)));
    one("count").textContent = say("examples", { n: examples.length });
    for (const { thumb } of examples.slice(-MOST_THUMBS)) {
        const picture = Object.assign(new Image(), { src: URL.createObjectURL(thumb), onload: () => URL.revokeObjectURL(picture.src) });
        one("thumbs").append(picture);
    }
    one("remove").onclick = () => changed(() => teacher.change((classes) => classes.splice(index, 1)));
    one("files").onclick = async () => fromFiles(index, await choose("image/*", true));
    held(one("hold"), index);
    for (const button of row.querySelectorAll("button")) button.setAttribute("aria-label", `${button.textContent}: ${name}`);
    return row;
}
/* Collects while a button is held, by finger, mouse or key; a click without holding, as a screen reader makes, takes a few. */
function held(button, index) {
    const begin = () => {
        if (collecting || (!live && still.hidden)) return;
        collecting = [];
        button.classList.add("on");
        if (!live || frozen) again().then(end);
    };
    const end = () => {
        if (!collecting) return;
        const found = collecting;
        collecting = null;
        button.classList.remove("on");
        if (found.length) changed(() => teacher.change((classes) => classes[index].examples.push(...found)));
    };
    button.onpointerdown = (event) => (button.setPointerCapture(event.pointerId), begin());
    button.onpointerup = button.onpointercancel = button.onblur = end;
    button.onkeydown = ({ key, repeat }) => { // gives nothing back: false would hold the focus here
        if ((key === " " || key === "Enter") && !repeat) begin();
    };
    button.onkeyup = end;
    button.oncontextmenu = (event) => event.preventDefault();
    button.onclick = ({ detail }) => {
        if (detail || collecting) return;
        begin();
        const wait = setInterval(() => collecting?.length < BURST || (clearInterval(wait), end()), 50);
    };
}
async function fromFiles(index, files) {
    const found = [], bad = [], canvas = document.createElement("canvas");
    for (const file of files) {
        try {
            await camera.draw(file, canvas);
            const { width, height } = canvas, seen = pixels(canvas, width, height);
            const { features } = await ask("frame", { pixels: seen.buffer, width, height }, [seen.buffer]);
            found.push({ features, thumb: await small(canvas, width, height) });
        } catch {
            bad.push(file.name);
        }
        told(`${found.length} / ${files.length}`);
    }
    if (found.length) await changed(() => teacher.change((classes) => classes[index].examples.push(...found)));
    if (bad.length) told(say("noPicture", { name: bad.join(", ") }));
}
async function opened([file]) {
    if (!file) return;
    try {
        const { kept: isKept, names } = await teacher.imported(file);
        shown(isKept, `${say("imported", { name: file.name, classes: names.join(", ") })} ${say("importedFew")}`);
    } catch (error) {
        told(error.trouble ? say(error.trouble, error) : say("failed", { why: error.message }));
    }
}

/* The page's own controls */
function tab(name) {
    for (const one of ["look", "teach"]) $(one).setAttribute("aria-pressed", one === name);
    $("lesson").hidden = name !== "teach";
    document.body.classList.toggle("teaching", name === "teach");
}
$("look").onclick = () => tab("look");
$("teach").onclick = () => tab("teach");
$("freeze").onclick = () => freeze(!frozen);
$("camera").onclick = filmed;
$("flip").onclick = () => (camera.turn(), filmed());
$("torch").onclick = ({ target }) => {
    const on = target.getAttribute("aria-pressed") !== "true";
    camera.light(on)?.then(() => target.setAttribute("aria-pressed", on), () => (target.hidden = true));
};
$("picture").onclick = async () => pictured((await choose("image/*"))[0]);
$("share").onclick = share;
$("smooth").onchange = () => keep("smooth", $("smooth").checked);
$("own").onchange = $("mine").onchange = () => ((steady = null), again());
$("new").onclick = () => changed(() => teacher.change((classes) => classes.push({ name: say("unnamed", { n: classes.length + 1 }), examples: [] })));
$("undo").onclick = () => changed(teacher.undo);
$("export").onclick = async () => given(new Blob([await teacher.exported()]), "taught.safetensors");
$("import").onclick = async () => opened(await choose(".safetensors"));
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) file.name.endsWith(".safetensors") ? (tab("teach"), opened([file])) : pictured(file);
};
document.onpaste = ({ clipboardData }) => clipboardData.files[0] && pictured(clipboardData.files[0]);
document.onvisibilitychange = () => !document.hidden && live && freeze(frozen);

async function begin() {
    $("label").textContent = say("starting");
    try {
        const app = await fetched("app.json");
        network = await start(app, () => ($("label").textContent = say("measuring")));
        $("picture").disabled = false;
        $("engine").textContent = say("engine", { name: network.variant.name, threads: network.threads, cores: network.cores });
        $("smooth").checked = (await kept("smooth")) ?? true;
        await teacher.begin(network);
        shown();
        $("mine").checked = Boolean(teacher.lesson().head);
    } catch (error) {
        return troubled(error, begin);
    }
    $("label").textContent = "";
    await filmed();
}
document.documentElement.lang = words.lang;
worded(document);
begin();
navigator.serviceWorker?.register("sw.js").then((found) => {
    found.onupdatefound = () => {
        const { installing } = found;
        if (navigator.serviceWorker.controller) installing.onstatechange = () => installing.state === "installed" && ($("engine").textContent = say("updated"));
    };
}, () => {}); // a page that is not secure has none and works on
