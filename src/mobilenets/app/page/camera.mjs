/* The camera, pictures in its place, and what is taken of either. */
let stream = null, facing = "environment", device = null, opening = 0;

const SIZE = { width: { ideal: 640 } }; // the height is the camera's own: a portrait stays one
const WORDS = { NotAllowedError: "refused", SecurityError: "refused", NotReadableError: "busy", AbortError: "busy" };
/** Thrown where another opening, or a closing, came before this one was done. */
export const OVERTAKEN = "overtaken";

/** Shows the camera in a video; throws { trouble } that says why there is none, or OVERTAKEN. */
export async function open(video, gone) {
    close();
    const own = opening;
    if (!navigator.mediaDevices?.getUserMedia) throw { trouble: isSecureContext ? "noCamera" : "insecure" };
    const which = device ? { deviceId: { exact: device } } : { facingMode: facing };
    let found;
    try {
        found = await navigator.mediaDevices.getUserMedia({ audio: false, video: { ...which, ...SIZE } });
        if (own !== opening) throw OVERTAKEN;
        video.srcObject = found;
        await video.play();
        if (own !== opening) throw OVERTAKEN;
    } catch (error) {
        for (const track of found?.getTracks() ?? []) track.stop();
        if (own !== opening) throw OVERTAKEN;
        device = null;
        throw { trouble: WORDS[error.name] ?? "noCamera" };
    }
    stream = found;
    const [track] = stream.getVideoTracks();
    track.onended = () => {
        close();
        gone();
    };
    video.classList.toggle("mirrored", track.getSettings().facingMode === "user");
    const several = (await cameras()).length > 1;
    if (own !== opening) throw OVERTAKEN;
    return { several, torch: Boolean(track.getCapabilities?.().torch) };
}

export function close() {
    opening++;
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
}

const cameras = async () => (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");

/** The next to open is the other one: the one that looks the other way, or simply the next where none says which way it looks. */
export async function turn() {
    const { facingMode, deviceId } = stream?.getVideoTracks()[0].getSettings() ?? {};
    if (facingMode) {
        facing = facingMode === "user" ? "environment" : "user";
        device = null;
        return;
    }
    const all = (await cameras()).map((one) => one.deviceId);
    device = all[(all.indexOf(deviceId) + 1) % all.length] ?? null;
}

export const light = (on) => stream?.getVideoTracks()[0].applyConstraints({ advanced: [{ torch: on }] });

const MOST_SIDE = 2048, THUMB = 40;
const frame = document.createElement("canvas");

/** A picture, turned as its camera was held, drawn on a canvas. */
export async function draw(file, canvas) {
    const picture = await createImageBitmap(file);
    const less = Math.min(1, MOST_SIDE / Math.max(picture.width, picture.height));
    canvas.width = Math.max(1, Math.round(picture.width * less));
    canvas.height = Math.max(1, Math.round(picture.height * less));
    canvas.getContext("2d", { willReadFrequently: true }).drawImage(picture, 0, 0, canvas.width, canvas.height);
    picture.close();
}

/** The bytes of a video's or a canvas's picture, RGBA: { pixels, width, height }. */
export function taken(source) {
    const width = source.videoWidth ?? source.width, height = source.videoHeight ?? source.height;
    Object.assign(frame, { width, height });
    const drawn = frame.getContext("2d", { willReadFrequently: true });
    drawn.drawImage(source, 0, 0);
    return { pixels: drawn.getImageData(0, 0, width, height).data, width, height };
}

/** A small JPEG of what was taken last; null where none can be made. */
export function thumbnail() {
    const canvas = Object.assign(document.createElement("canvas"), { width: Math.max(1, Math.round(THUMB * frame.width / frame.height)), height: THUMB });
    canvas.getContext("2d").drawImage(frame, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.7));
}
