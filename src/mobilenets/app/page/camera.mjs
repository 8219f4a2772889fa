/* The camera, and pictures in its place. */
let stream = null, facing = "environment";

/** Shows the camera in a video; throws the name of a text that says why there is none. */
export async function open(video, gone) {
    close();
    if (!navigator.mediaDevices?.getUserMedia) throw isSecureContext ? "noCamera" : "insecure";
    const size = { width: { ideal: 640 } }; // the height is the camera's own: a portrait stays one
    try {
        stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { facingMode: facing, ...size } });
    } catch ({ name }) {
        throw { NotAllowedError: "refused", SecurityError: "refused", NotReadableError: "busy", AbortError: "busy" }[name] ?? "noCamera";
    }
    const [track] = stream.getVideoTracks();
    track.onended = () => {
        close();
        gone();
    };
    video.srcObject = stream;
    video.classList.toggle("mirrored", (track.getSettings().facingMode ?? facing) === "user");
    await video.play();
    const all = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    return { several: all.length > 1, torch: Boolean(track.getCapabilities?.().torch) };
}

export function close() {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
}

export function turn() {
    facing = facing === "user" ? "environment" : "user";
}

export const light = (on) => stream?.getVideoTracks()[0].applyConstraints({ advanced: [{ torch: on }] });

const MOST_SIDE = 2048;

/** A picture, turned as its camera was held, drawn on a canvas. */
export async function draw(file, canvas) {
    const picture = await createImageBitmap(file);
    const less = Math.min(1, MOST_SIDE / Math.max(picture.width, picture.height));
    canvas.width = Math.max(1, Math.round(picture.width * less));
    canvas.height = Math.max(1, Math.round(picture.height * less));
    canvas.getContext("2d", { willReadFrequently: true }).drawImage(picture, 0, 0, canvas.width, canvas.height);
    picture.close();
}
