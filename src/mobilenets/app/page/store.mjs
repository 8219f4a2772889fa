/* What is kept on this device, by name, in the browser's own database; without one (a private window) nothing is. */

let opened = new Promise((done) => {
    try {
        const asked = indexedDB.open("mobilenets" + new URL(".", location.href).pathname, 1);
        asked.onupgradeneeded = () => asked.result.createObjectStore("kept");
        asked.onsuccess = () => done(asked.result);
        asked.onerror = () => done(null);
    } catch {
        done(null);
    }
});

const ask = async (mode, what) => {
    const base = await opened;
    if (!base) throw { trouble: "unkept" };
    return new Promise((done, failed) => {
        const turn = base.transaction("kept", mode), asked = what(turn.objectStore("kept"));
        turn.oncomplete = () => done(asked.result);
        turn.onerror = turn.onabort = () => failed(turn.error);
    });
};

/** What was kept, or undefined; where a database cannot be read, nothing is written over what may be in it. */
export const kept = (name) => ask("readonly", (all) => all.get(name)).catch(() => (opened = Promise.resolve(null), undefined));
/** Keeps a value whole or not at all; gives null, or the name of a text that says why it is not kept. */
export const keep = (name, value) => ask("readwrite", (all) => all.put(value, name)).then(() => null, ({ trouble }) => trouble ?? "full");
