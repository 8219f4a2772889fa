/* What is kept on this device, by name, in the browser's own database; without one (a private window) nothing is. */

const opened = new Promise((done) => {
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
    if (!base) return undefined;
    return new Promise((done, failed) => {
        const turn = base.transaction("kept", mode), asked = what(turn.objectStore("kept"));
        turn.oncomplete = () => done(asked.result);
        turn.onerror = turn.onabort = () => failed(turn.error);
    });
};

export const kept = (name) => ask("readonly", (all) => all.get(name)).catch(() => undefined);
/** Keeps a value whole or not at all; false where there is no room for it. */
export const keep = (name, value) => ask("readwrite", (all) => all.put(value, name)).then(() => true, () => false);
