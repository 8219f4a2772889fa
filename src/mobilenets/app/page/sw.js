/* The whole app is kept on the device and used from there; a newer one is fetched whole and used when this one is closed. */
const VERSION = "@version@"; // the digest of app.json, in which are those of all other files
const NAME = (version) => `${new URL(registration.scope).pathname} ${version}`;
const HEADERS = { // threads and the page's policy, its workers' too, whatever the host says
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": "@policy@",
};

async function put(store, file, sha256) {
    const found = await fetch(new Request(file, { cache: "no-cache" })), data = await found.arrayBuffer();
    const digest = Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", data)), (byte) => byte.toString(16).padStart(2, "0"));
    if (!found.ok || digest.join("") !== sha256) throw new Error(`${file} (${found.status}): lacking, cut off or of another version`);
    await store.put(file, new Response(data, { headers: { ...HEADERS, "Content-Type": found.headers.get("Content-Type") } }));
    return data;
}

self.addEventListener("install", (event) => event.waitUntil((async () => {
    const store = await caches.open(NAME(VERSION));
    const { files } = JSON.parse(new TextDecoder().decode(await put(store, "app.json", VERSION)));
    await Promise.all(Object.entries(files).map(([file, sha256]) => put(store, file, sha256)));
})()));

self.addEventListener("activate", (event) => event.waitUntil((async () => {
    for (const name of await caches.keys())
        if (name.startsWith(NAME("")) && name !== NAME(VERSION)) await caches.delete(name);
    await clients.claim();
})()));

self.addEventListener("fetch", (event) => {
    const url = new URL(event.request.url);
    if (event.request.method !== "GET" || url.origin !== location.origin) return;
    const file = event.request.mode === "navigate" ? "index.html" : url.pathname.slice(new URL(registration.scope).pathname.length);
    event.respondWith(caches.open(NAME(VERSION)).then((store) => store.match(file)).then((found) => found ?? fetch(event.request)));
});
