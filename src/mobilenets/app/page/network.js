/* The network in its worker: which of those shipped, by how many threads, and what is known of it. */
import { kept, keep } from "./store.js";

/* Orders to a worker. Where it breaks down, all who wait are told, and the next order begins another. */
function desk() {
    const waiting = new Map();
    let worker = null, number = 0;
    const begun = () => {
        const own = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
        const end = (file) => {
            own.terminate();
            worker = null;
            for (const { failed } of waiting.values()) failed({ trouble: "interrupted", file });
            waiting.clear();
        };
        own.onmessage = ({ data }) => {
            const { done, failed } = waiting.get(data.number);
            waiting.delete(data.number);
            data.trouble ? failed(data) : done(data);
            if (data.trouble === "interrupted") end(data.file); // a module that did not come is not asked for again by the same worker
        };
        own.onerror = (event) => {
            event.preventDefault();
            end("worker.js");
        };
        return own;
    };
    return (order, given = {}, moved = []) => new Promise((done, failed) => {
        worker ??= begun();
        waiting.set(++number, { done, failed });
        worker.postMessage({ order, number, ...given }, moved);
    });
}

/** What the network's worker makes of an order; throws { trouble, … }. */
export const ask = desk();
/** The same of another worker, so that frames go on while it learns. */
export const askAside = desk();

/** Bytes or JSON of one of the app's files; throws { trouble, file } where it does not come. */
export async function fetched(file, kind = "json") {
    try {
        const answer = await fetch(file);
        if (!answer.ok) throw new Error(answer.status);
        return await answer[kind]();
    } catch {
        throw { trouble: "interrupted", file };
    }
}

/* Loads a variant; null where it has no such number of threads here. */
async function loaded(order) {
    try {
        return { ...order, ...(await ask("load", order)) };
    } catch (error) {
        if (order.threads === 1) throw error;
        return null;
    }
}

/**
 * Loads the largest variant whose frames hold the budget here, by as many threads as are fastest: measured at the first
 * start, remembered after it. Where the one of digest `taught` is shipped it is that one.
 */
export async function start(app, taught, measuring) {
    const cores = navigator.hardwareConcurrency || 1, counts = [1];
    if (globalThis.crossOriginIsolated) for (const n of [2, 4]) if (n <= cores) counts.push(n);
    const same = app.variants.filter(({ digest }) => digest === taught), variants = same.length ? same : app.variants;
    const place = `choice ${app.version} ${counts.length} ${same.length ? taught : ""}`;
    let choice = await kept(place);
    if (!choice && variants.length * counts.length > 1) {
        measuring();
        for (const { folder } of [...variants].reverse()) {
            const paces = [];
            for (const threads of counts) paces.push(await loaded({ folder, threads, measure: true }));
            const best = paces.filter(Boolean).reduce((a, b) => (b.ms < 0.9 * a.ms ? b : a));
            choice = { folder, threads: best.threads };
            if (best.ms <= app.budget_ms) break;
        }
        await keep(place, choice);
    }
    choice ??= { folder: variants[0].folder, threads: 1 };
    const model = await fetched(`${choice.folder}/model.json`);
    const { folder, threads } = (await loaded(choice)) ?? (await loaded({ ...choice, threads: 1 }));
    return { folder, threads, cores, model, variant: app.variants.find((one) => one.folder === folder) };
}
