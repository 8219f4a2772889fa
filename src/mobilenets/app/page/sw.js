/* The whole app is kept on the device and used from there; a newer one is fetched whole and used from the next start. */
const VERSION = "@version@";
const FILES = @files@;
const NAME = (version) => `${new URL(registration.scope).pathname} ${version}`;
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

self.addEventListener("install", (event) => event.waitUntil((async () => {
    const store = await caches.open(NAME(VERSION));
    await Promise.all(FILES.map(async (file) => {
        const found = await fetch(new Request(file, { cache: "no-cache" }));
        if (!found.ok) throw new Error(`${file}: ${found.status}`);
        const headers = new Headers(found.headers); // with threads from the second start on, whatever the server says
        for (const [name, value] of Object.entries(ISOLATED)) headers.set(name, value);
        await store.put(file, new Response(await found.blob(), { headers }));
    }));
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
