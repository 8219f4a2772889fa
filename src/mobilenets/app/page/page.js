/* What all parts of the page share: its elements, its texts, files that come from a person and go to one. */
import words from "./words.js";

export const $ = (id) => document.getElementById(id);
export const say = (word, facts = {}) => words[word].replace(/\{(\w+)\}/g, (_, name) => facts[name] ?? "");
/** What a person reads of an error: { trouble, … } names a text, all others tell themselves. */
export const sentence = (error) => (error?.trouble ? say(error.trouble, error) : say("failed", { why: error?.message ?? error }));

/** Writes the texts of an element and of all in it. */
export function worded(root) {
    for (const one of root.querySelectorAll("[data-word]")) one.textContent = say(one.dataset.word || one.id);
    for (const one of root.querySelectorAll("[data-label]")) one.setAttribute("aria-label", say(one.dataset.label));
}

/** Files that a person chooses. */
const chooser = Object.assign(document.createElement("input"), { type: "file" });
export const choose = (accept, many = false) => new Promise((done) => {
    Object.assign(chooser, { accept, multiple: many, value: "", onchange: () => done([...chooser.files]) });
    chooser.click();
});

/** Gives a file to a person: shares it where asked to and able to, else saves it. Says what became of it, if the browser does not. */
export async function give(blob, name, shared = false) {
    const file = new File([blob], name, { type: blob.type });
    if (shared && navigator.canShare?.({ files: [file] })) {
        await navigator.share({ files: [file] }).catch(() => {}); // a person may think better of it
        return "";
    }
    if (globalThis.saver) { // in the Android package, whose pages cannot save
        const text = await new Promise((done) => Object.assign(new FileReader(), { onload: ({ target }) => done(target.result) }).readAsDataURL(blob));
        return say(saver.save(name, text.slice(text.indexOf(",") + 1)) ? "saved" : "unsaved", { name });
    }
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    return "";
}
