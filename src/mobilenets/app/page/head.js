/* A head on features: logistic regression, fitted here, and how it answers, to the last bit as a model file says. */

const DECAY = 1e-2; // of squared weights, on features of variance one
const STEPS = 200, KEPT = 8, ENOUGH = 1e-5;

/**
 * A head { weights: Float32Array [classes × channels], bias: Float32Array } for features (an array of Float32Array)
 * and the class of each, by L-BFGS. Classes weigh alike however many examples they have.
 */
export function fit(features, classes, count) {
    const n = features.length, d = features[0].length;
    const mean = new Float64Array(d), scale = new Float64Array(d);
    for (const one of features) for (let k = 0; k < d; k++) mean[k] += one[k] / n;
    for (const one of features) for (let k = 0; k < d; k++) scale[k] += (one[k] - mean[k]) ** 2 / n;
    for (let k = 0; k < d; k++) scale[k] = 1 / Math.sqrt(scale[k] + 1e-6);
    const x = features.map((one) => Float64Array.from(one, (v, k) => (v - mean[k]) * scale[k]));
    const many = new Array(count).fill(0);
    for (const c of classes) many[c]++;
    const share = classes.map((c) => 1 / (many[c] * count));

    /* Loss and gradient at w: for each class d weights and a bias. */
    const size = count * (d + 1), z = new Float64Array(count);
    const loss = (w, gradient) => {
        let total = 0;
        gradient.fill(0);
        for (let i = 0; i < n; i++) {
            for (let c = 0; c < count; c++) {
                let sum = w[c * (d + 1) + d];
                for (let k = 0, at = c * (d + 1); k < d; k++) sum += w[at + k] * x[i][k];
                z[c] = sum;
            }
            const top = Math.max(...z);
            let all = 0;
            for (let c = 0; c < count; c++) all += Math.exp(z[c] - top);
            total += share[i] * (Math.log(all) + top - z[classes[i]]);
            for (let c = 0; c < count; c++) {
                const by = share[i] * (Math.exp(z[c] - top) / all - (c === classes[i]));
                for (let k = 0, at = c * (d + 1); k < d; k++) gradient[at + k] += by * x[i][k];
                gradient[c * (d + 1) + d] += by;
            }
        }
        for (let at = 0; at < size; at++) {
            if (at % (d + 1) === d) continue;
            total += 0.5 * DECAY * w[at] ** 2;
            gradient[at] += DECAY * w[at];
        }
        return total;
    };

    const w = least(loss, size);
    const weights = new Float32Array(count * d), bias = new Float32Array(count);
    for (let c = 0; c < count; c++) {
        let sum = w[c * (d + 1) + d];
        for (let k = 0; k < d; k++) {
            weights[c * d + k] = w[c * (d + 1) + k] * scale[k];
            sum -= w[c * (d + 1) + k] * scale[k] * mean[k];
        }
        bias[c] = sum;
    }
    return { weights, bias };
}

/* Where a smooth function is least: L-BFGS (Nocedal 1980) from noughts on, steps halved until they pay. */
function least(loss, size) {
    const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
    let w = new Float64Array(size), gradient = new Float64Array(size), past = [];
    let value = loss(w, gradient);
    for (let step = 0; step < STEPS && gradient.some((v) => Math.abs(v) > ENOUGH); step++) {
        const to = gradient.map((v) => -v), shares = [];
        for (const { s, y, r } of past) {
            const share = r * dot(s, to);
            shares.push(share);
            for (let i = 0; i < size; i++) to[i] -= share * y[i];
        }
        if (past.length) {
            const { s, y } = past[0], by = dot(s, y) / dot(y, y);
            for (let i = 0; i < size; i++) to[i] *= by;
        }
        for (const { s, y, r } of [...past].reverse()) {
            const more = shares.pop() - r * dot(y, to);
            for (let i = 0; i < size; i++) to[i] += more * s[i];
        }
        const slope = dot(gradient, to), before = gradient;
        let length = 1, next = w, found = Infinity;
        for (; length > 1e-10; length /= 2) {
            next = w.map((v, i) => v + length * to[i]);
            gradient = new Float64Array(size);
            found = loss(next, gradient);
            if (found <= value + 1e-4 * length * slope) break;
        }
        if (!(found < value)) break;
        const s = next.map((v, i) => v - w[i]), y = gradient.map((v, i) => v - before[i]), curve = dot(s, y);
        if (curve > 1e-12) past = [{ s, y, r: 1 / curve }, ...past].slice(0, KEPT);
        w = next;
        value = found;
    }
    return w;
}

/**
 * Logits of a head for features, `values` times `step` (bytes less their zero; of a network in float32 the features
 * and 1): channel by channel, each product and sum rounded by itself, as compiled code and the reference have it.
 */
export function logits({ weights, bias }, values, step) {
    const d = values.length, f = Math.fround;
    return Float32Array.from(bias, (b, c) => {
        let sum = 0;
        for (let k = 0, at = c * d; k < d; k++) sum = f(sum + f(weights[at + k] * values[k]));
        return f(f(sum * step) + b);
    });
}
