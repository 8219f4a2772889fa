/* The page: frames from a camera or a picture to the network, answers to the screen. */
import words from "./words.js";
import { $, choose, give, say, sentence, worded } from "./page.js";
import * as camera from "./camera.js";
import * as teaching from "./teaching.js";
import { last } from "./lesson.js";
import { ask, fetched, start } from "./network.js";
import { kept, keep } from "./store.js";

const STEADY = 0.25, SHOWN = 3, LATEST = 120;
const video = $("video"), still = $("still");
let network, origin = 0, live = false, busy = false, frozen = false, steady = null, by, newer = "", paces = [];

function trouble(error, again, word = "retry") {
    $("why").textContent = sentence(error);
    $("trouble").hidden = false;
    $("retry").hidden = !again;
    $("retry").textContent = say(word);
    $("retry").onclick = () => {
        $("trouble").hidden = true;
        again();
    };
    $("label").textContent = $("pace").textContent = "";
    $("bars").replaceChildren();
}

/* Answers */
function softmax(logits) {
    const top = Math.max(...logits), all = Array.from(logits, (v) => Math.exp(v - top));
    const sum = all.reduce((a, b) => a + b);
    return all.map((v) => v / sum);
}
function answered({ logits, ms }, mine) {
    const { labels, threshold } = mine ? { labels: mine.names, threshold: null } : network.model.taught;
    if (!$("smooth").checked || by !== mine?.head || !live || frozen) steady = null;
    by = mine?.head;
    if (!steady) steady = Array.from(logits);
    else steady = steady.map((v, i) => v + STEADY * (logits[i] - v));
    const scores = softmax(steady), order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]).slice(0, SHOWN);
    const label = threshold !== null && steady[order[0]] < threshold ? say("unsure") : labels[order[0]];
    if ($("label").textContent !== label) $("label").textContent = label; // the same again would be read out again
    while ($("bars").children.length > order.length) $("bars").lastChild.remove();
    order.forEach((index, place) => {
        let row = $("bars").children[place];
        if (!row) {
            row = $("bars").appendChild(document.createElement("li"));
            row.append(Object.assign(document.createElement("span"), { dir: "auto" }), document.createElement("span"), document.createElement("progress"));
        }
        const [name, share, bar] = row.children;
        name.textContent = labels[index];
        share.textContent = `${(100 * scores[index]).toFixed(0)} %`;
        bar.value = scores[index];
        bar.setAttribute("aria-label", labels[index]);
    });
    $("pace").textContent = live ? paced(ms) : say("paceOne", { ms: ms.toFixed(1) });
    $("share").disabled = false;
    return label;
}
/* Milliseconds of the latest frames and how many come in a second. */
function paced(ms) {
    paces = [...paces, { ms, at: performance.now() }].slice(-LATEST);
    const sorted = paces.map((one) => one.ms).sort((a, b) => a - b), at = (share) => sorted[Math.ceil(share * sorted.length) - 1].toFixed(1);
    const seconds = (paces.at(-1).at - paces[0].at) / 1000;
    return say("pace", { p50: at(0.5), p95: at(0.95), fps: seconds ? Math.round((paces.length - 1) / seconds) : 1 });
}

/* Frames: the next is taken when the last has been answered; those in between are dropped. */
async function look(source) {
    const whose = origin, mine = teaching.mine(), { pixels, width, height } = camera.taken(source);
    const into = teaching.collected(), thumb = into && camera.thumbnail(), copy = globalThis.onseen && pixels.slice();
    const found = await ask("frame", { pixels: pixels.buffer, width, height, head: mine?.head }, [pixels.buffer]);
    if (whose !== origin) return; // another camera or picture has come meanwhile
    const label = answered(found, mine);
    globalThis.onseen?.({ pixels: copy, width, height, label, ...found }); // tests watch frames by it
    if (into) teaching.collect({ features: found.features, thumb: await thumb }, into);
}
function next() {
    const whose = origin, then = () => whose === origin && tick();
    video.requestVideoFrameCallback ? video.requestVideoFrameCallback(then) : requestAnimationFrame(then);
}
async function tick() {
    next();
    if (busy || frozen || document.hidden || !video.videoWidth) return;
    busy = true;
    try {
        await look(video);
    } catch (error) {
        stop();
        trouble(error, begin);
    }
    busy = false;
}

/* Where frames come from */
function stop() {
    teaching.release();
    camera.close();
    live = false;
    origin++;
    paces = [];
    steady = null;
    $("freeze").hidden = $("flip").hidden = $("torch").hidden = $("share").disabled = true;
    $("torch").setAttribute("aria-pressed", false);
}
async function filmed() {
    stop();
    try {
        const { several, torch } = await camera.open(video, () => (stop(), trouble({ trouble: "unplugged" }, filmed)));
        $("flip").hidden = !several;
        $("torch").hidden = !torch;
    } catch (error) {
        if (error !== camera.OVERTAKEN) trouble(error, filmed);
        return;
    }
    $("trouble").hidden = still.hidden = $("camera").hidden = live = true;
    video.hidden = $("freeze").hidden = false;
    freeze(false);
    next();
}
async function pictured(file) {
    if (!file || $("picture").disabled) return; // dropped before there was a network
    try {
        await camera.draw(file, still);
    } catch {
        stop();
        return trouble({ trouble: "noPicture", name: file.name }, filmed, "camera");
    }
    stop();
    $("trouble").hidden = video.hidden = true;
    still.hidden = $("camera").hidden = false;
    await again();
}
/* Looks anew at what stands still: a picture, or a frozen frame. */
async function again() {
    const source = still.hidden ? live && frozen && video : still;
    if (source) await look(source).catch((error) => trouble(error, begin));
}
function freeze(on) {
    frozen = on;
    paces = [];
    $("freeze").textContent = say(on ? "go" : "freeze");
    on ? (video.pause(), again()) : video.srcObject && video.play().catch(() => {});
}
async function share() {
    const source = still.hidden ? video : still, width = source.videoWidth ?? source.width, height = source.videoHeight ?? source.height;
    const shot = Object.assign(document.createElement("canvas"), { width, height: height + Math.round(height / 8) }), drawn = shot.getContext("2d");
    drawn.fillStyle = "#111417";
    drawn.fillRect(0, 0, shot.width, shot.height);
    drawn.drawImage(source, 0, 0);
    drawn.fillStyle = "#fff";
    drawn.font = `600 ${Math.round(height / 14)}px system-ui, sans-serif`;
    const label = $("label").textContent || "picture", share = (label !== say("unsure") && $("bars").firstChild?.children[1].textContent) || "";
    let said = `${label}  ${share}`;
    for (let n = label.length - 1; n > 3 && drawn.measureText(said).width > width - height / 15; n--) said = `${label.slice(0, n)}…  ${share}`;
    drawn.fillText(said, height / 30, height * 1.085, width - height / 15);
    const given = await give(await new Promise((done) => shot.toBlob(done, "image/png")), `${label}.png`, true);
    if (given) $("engine").textContent = given; // the lines above change with the next frame
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
$("flip").onclick = () => camera.turn().then(filmed);
$("torch").onclick = ({ target }) => {
    const on = target.getAttribute("aria-pressed") !== "true";
    camera.light(on)?.then(() => target.setAttribute("aria-pressed", on), () => (target.hidden = true));
};
$("picture").onclick = async () => pictured((await choose("image/*"))[0]);
$("share").onclick = share;
$("smooth").onchange = () => keep("smooth", $("smooth").checked);
$("own").onchange = $("mine").onchange = () => ((steady = null), again());
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (!file?.name.endsWith(".safetensors")) pictured(file);
    else if (!$("teach").disabled) tab("teach"), teaching.opened([file]);
};
document.onpaste = ({ clipboardData }) => pictured(clipboardData.files[0]);
document.onvisibilitychange = () => !document.hidden && live && freeze(frozen);

async function begin() {
    $("label").textContent = say("starting");
    try {
        const app = await fetched("app.json"), taught = await last();
        network = await start(app, taught, () => ($("label").textContent = say("measuring")));
        $("engine").textContent = newer || say("engine", { name: network.variant.name, threads: network.threads, cores: network.cores });
        $("smooth").checked = (await kept("smooth")) ?? true;
        await teaching.begin(network, { again, live: () => live && !frozen, anything: () => live || !still.hidden }, taught);
        $("picture").disabled = $("teach").disabled = false;
    } catch (error) {
        return trouble(error, begin);
    }
    $("label").textContent = "";
    await filmed();
}
document.documentElement.lang = words.lang;
worded(document);
$("stuck").remove();
document.querySelector("main").hidden = false;
begin();
navigator.serviceWorker?.register("sw.js").then((found) => {
    const there = () => found.waiting && navigator.serviceWorker.controller && ($("engine").textContent = newer = say("updated"));
    found.onupdatefound = () => (found.installing.onstatechange = there);
    there();
}, () => {}); // a page that is not secure has none and works on
