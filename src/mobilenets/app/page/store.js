/* What is kept on this device, by name, in the browser's own database; without one (a private window) nothing is. */

const open = () => new Promise((done) => {
    try {
        const asked = indexedDB.open("mobilenets" + new URL(".", location.href).pathname, 1);
        asked.onupgradeneeded = () => asked.result.createObjectStore("kept");
        asked.onsuccess = () => done(asked.result);
        asked.onerror = () => done(null);
    } catch {
        done(null);
    }
});
let opened = open();

const ask = async (mode, what) => {
    const begun = (base) => base.transaction("kept", mode);
    const turn = await opened.then(begun).catch((error) => { // of that name where the browser has closed it
        if (error.name !== "InvalidStateError") throw error;
        return (opened = open()).then(begun);
    });
    return new Promise((done, failed) => {
        const asked = what(turn.objectStore("kept"));
        turn.oncomplete = () => done(asked.result);
        turn.onabort = () => failed(turn.error);
    });
};

/** What was kept, or undefined; where a database cannot be read, nothing is written over what may be in it. */
export const kept = (name) => ask("readonly", (all) => all.get(name)).catch(() => (opened = Promise.resolve(null), undefined));
/** Keeps a value whole or not at all; gives null, or the name of a text that says why it is not kept. */
export const keep = (name, value) => ask("readwrite", (all) => all.put(value, name)).then(() => null, (error) => error?.name === "QuotaExceededError" ? "full" : "unkept");
