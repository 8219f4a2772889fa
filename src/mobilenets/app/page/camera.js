/* The camera, pictures in its place, and what is taken of either. */
let stream = null, facing = "environment", device = null, left = null, opening = 0;

const SIZE = { width: { ideal: 640 } }; // the height is the camera's own: a portrait stays one
const WORDS = { NotAllowedError: "refused", SecurityError: "refused", NotReadableError: "busy", AbortError: "busy" };
/** Thrown where another opening or a closing came before this one was done. */
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
    const [track] = stream.getVideoTracks(), { facingMode, deviceId } = track.getSettings(), all = await cameras();
    if (own !== opening) throw OVERTAKEN;
    if (deviceId && deviceId === left && all.length > 1) { // none looks the other way
        device = after(deviceId, all);
        left = null;
        return open(video, gone);
    }
    track.onended = () => {
        close();
        gone();
    };
    video.classList.toggle("mirrored", facingMode === "user");
    return { several: all.length > 1, torch: Boolean(track.getCapabilities?.().torch) };
}

export function close() {
    opening++;
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
}

const cameras = async () => (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput").map((one) => one.deviceId);
const after = (one, all) => all[(all.indexOf(one) + 1) % all.length] ?? null;

/** The next to open looks the other way, or is simply the next where none says so. */
export async function turn() {
    const { facingMode, deviceId } = stream?.getVideoTracks()[0].getSettings() ?? {};
    left = facingMode && !device ? deviceId : null;
    if (left) facing = facingMode === "user" ? "environment" : "user";
    else device = after(deviceId, await cameras());
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
    const drawn = canvas.getContext("2d", { willReadFrequently: true });
    drawn.fillStyle = "#fff"; // behind what lets it through, as where models learn
    drawn.fillRect(0, 0, canvas.width, canvas.height);
    drawn.drawImage(picture, 0, 0, canvas.width, canvas.height);
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

/** A small JPEG of what was taken last, its bytes: databases keep each Blob as a file. Null where none can be made. */
export function thumbnail() {
    const canvas = Object.assign(document.createElement("canvas"), { width: Math.max(1, Math.round(THUMB * frame.width / frame.height)), height: THUMB });
    canvas.getContext("2d").drawImage(frame, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob((blob) => done(blob && blob.arrayBuffer()), "image/jpeg", 0.7));
}
