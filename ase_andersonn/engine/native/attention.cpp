// Attention of each atom over its neighbours, and the derivative of its outputs in the geometry, atom by atom.
//
// The formulas are those of nn/neighbor_attention.py. Depth first: all layers of one atom before the next atom, so that
// everything in between stays in the first levels of the cache. Nothing is kept between the two passes: the backward pass
// computes the forward one again.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#else
constexpr int BYTES = 32;
#endif

struct Sizes {
    int64_t n_radial, l_max, n_edge, n_token, n_heads, n_channels, separable;
    double cutoff;
};

template <class T> struct Weights {  // row-major [n_in, n_out]
    const T *center, *other, *factor;                     // rows of species
    const T *radial, *score, *score_bias, *value, *value_bias, *query, *query_bias;
    const T *angular, *attended, *direct, *direct_bias, *gate, *gate_bias, *weight, *weight_bias;
};

template <class T> struct Vec { typedef T type __attribute__((vector_size(BYTES), aligned(BYTES), may_alias)); static constexpr int n = BYTES / sizeof(T); };
template <class T> using V = typename Vec<T>::type;
template <class T> constexpr int W = Vec<T>::n;
template <class T> inline V<T> splat(T x) { V<T> v; for (int i = 0; i < W<T>; i++) v[i] = x; return v; }
template <class T> inline V<T> load(const T *p) { return *reinterpret_cast<const V<T> *>(p); }
template <class T> inline void store(T *p, V<T> v) { *reinterpret_cast<V<T> *>(p) = v; }
inline int64_t padded(int64_t n, int64_t w) { return (n + w - 1) / w * w; }

// exp of a vector: 2^n e^r with |r| <= ln 2 / 2, and a polynomial for e^r.
inline V<float> vexp(V<float> x) {
    typedef int32_t I __attribute__((vector_size(BYTES)));
    x = x < -87.0f ? splat<float>(-87.0f) : x; x = x > 88.0f ? splat<float>(88.0f) : x;
    V<float> t = x * 1.44269504088896341f;
    I k = __builtin_convertvector(t + (t < 0.0f ? splat<float>(-0.5f) : splat<float>(0.5f)), I);
    V<float> n = __builtin_convertvector(k, V<float>);
    V<float> r = x - n * 0.693359375f - n * -2.12194440e-4f;
    V<float> p = splat<float>(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f; p = p * r + 8.3334519073e-3f; p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f; p = p * r + 5.0000001201e-1f; p = p * r * r + r + 1.0f;
    I e = (k + 127) << 23;
    V<float> s; std::memcpy(&s, &e, sizeof s); return p * s;
}
inline V<double> vexp(V<double> x) {
    typedef int64_t I __attribute__((vector_size(BYTES)));
    x = x < -700.0 ? splat<double>(-700.0) : x; x = x > 700.0 ? splat<double>(700.0) : x;
    V<double> t = x * 1.4426950408889634074;
    I k = __builtin_convertvector(t + (t < 0.0 ? splat<double>(-0.5) : splat<double>(0.5)), I);
    V<double> n = __builtin_convertvector(k, V<double>);
    V<double> r = x - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6;
    V<double> p = splat<double>(1.0 / 6227020800.0);
    const double c[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0};
    for (double k : c) p = p * r + k;
    I e = (k + 1023) << 52;
    V<double> s; std::memcpy(&s, &e, sizeof s); return p * s;
}
template <class T> inline V<T> vsigmoid(V<T> x) { return splat<T>(1) / (vexp(-x) + T(1)); }
template <class T> inline V<T> vtanh(V<T> x) { return splat<T>(1) - T(2) / (vexp(x + x) + T(1)); }

// Y[rows, n] = X[rows, m] B[m, n] (+ bias) (+ Y); leading dimensions ldx, n of B and Y padded to vectors.
template <class T, int R, int C> inline void block(const T *x, int64_t ldx, const T *b, int64_t ldb, const T *bias, T *y, int64_t ldy, int64_t m, bool add) {
    V<T> acc[R][C];
    for (int r = 0; r < R; r++) for (int c = 0; c < C; c++) {
        V<T> start = bias ? load(bias + c * W<T>) : splat<T>(0);
        acc[r][c] = add ? start + load(y + r * ldy + c * W<T>) : start;
    }
    for (int64_t k = 0; k < m; k++) {
        V<T> w[C];
        for (int c = 0; c < C; c++) w[c] = load(b + k * ldb + c * W<T>);
        for (int r = 0; r < R; r++) {
            const T xk = x[r * ldx + k];
            for (int c = 0; c < C; c++) acc[r][c] += w[c] * xk;
        }
    }
    for (int r = 0; r < R; r++) for (int c = 0; c < C; c++) store(y + r * ldy + c * W<T>, acc[r][c]);
}
template <class T, int C> void columns(const T *x, int64_t ldx, const T *b, int64_t ldb, const T *bias, T *y, int64_t ldy, int64_t rows, int64_t m, bool add) {
    constexpr int R = BYTES == 64 ? 24 / C > 8 ? 8 : 24 / C : 12 / C > 4 ? 4 : 12 / C;
    int64_t i = 0;
    for (; i + R <= rows; i += R) block<T, R, C>(x + i * ldx, ldx, b, ldb, bias, y + i * ldy, ldy, m, add);
    for (; i + 2 <= rows; i += 2) block<T, 2, C>(x + i * ldx, ldx, b, ldb, bias, y + i * ldy, ldy, m, add);
    for (; i < rows; i++) block<T, 1, C>(x + i * ldx, ldx, b, ldb, bias, y + i * ldy, ldy, m, add);
}
template <class T> void gemm(const T *x, int64_t ldx, const T *b, int64_t n, const T *bias, T *y, int64_t ldy, int64_t rows, int64_t m, bool add = false) {
    const int64_t w = W<T>;
    int64_t j = 0;
    auto bs = [&](int64_t k) { return bias ? bias + k : nullptr; };
    for (; j + 4 * w <= n; j += 4 * w) columns<T, 4>(x, ldx, b + j, n, bs(j), y + j, ldy, rows, m, add);
    for (; j + 2 * w <= n; j += 2 * w) columns<T, 2>(x, ldx, b + j, n, bs(j), y + j, ldy, rows, m, add);
    for (; j + w <= n; j += w) columns<T, 1>(x, ldx, b + j, n, bs(j), y + j, ldy, rows, m, add);
}

template <class T> struct Buffer {  // n zeros, aligned to vectors; std::bad_alloc without memory
    T *p;
    explicit Buffer(int64_t n) : p(static_cast<T *>(::operator new(std::max<int64_t>(n, 1) * sizeof(T), std::align_val_t{64}))) { std::memset(p, 0, n * sizeof(T)); }
    Buffer(Buffer &&other) noexcept : p(other.p) { other.p = nullptr; }
    ~Buffer() { ::operator delete(p, std::align_val_t{64}); }
    operator T *() const { return p; }
};

// A matrix with its rows padded to whole vectors, and its transpose.
template <class T> struct Matrix {
    int64_t p_in, p_out; Buffer<T> a, t;
    Matrix(const T *w, int64_t n_in, int64_t n_out) : p_in(padded(n_in, W<T>)), p_out(padded(n_out, W<T>)), a(n_in * p_out), t(n_out * p_in) {
        for (int64_t i = 0; i < n_in; i++) for (int64_t j = 0; j < n_out; j++) { a[i * p_out + j] = w[i * n_out + j]; t[j * p_in + i] = w[i * n_out + j]; }
    }
};
template <class T> struct Rows {  // vectors padded to whole ones
    int64_t p; Buffer<T> a;
    Rows(const T *w, int64_t rows, int64_t n) : p(padded(n, W<T>)), a(rows * p) {
        if (w) for (int64_t i = 0; i < rows; i++) std::memcpy(a + i * p, w + i * n, sizeof(T) * n);
    }
};

template <class T> struct Model {
    Sizes s;
    int64_t ny, E, Tk, C, H, pr, py;
    Matrix<T> radial, score, value, query, attended, direct, gate, weight;
    Rows<T> center, other, factor, score_bias, value_bias, query_bias, direct_bias, gate_bias, weight_bias;
    Buffer<T> angular;                // [ny, Tk] by component
    Model(const Sizes &z, const Weights<T> &w, int64_t n_species)
        : s(z), ny((z.l_max + 1) * (z.l_max + 1)), E(padded(z.n_edge, W<T>)), Tk(padded(z.n_token, W<T>)), C(padded(z.n_channels, W<T>)), H(padded(z.n_heads, W<T>)),
          pr(padded(z.n_radial, W<T>)), py(padded(ny, W<T>)),
          radial(w.radial, z.n_radial, z.n_edge), score(w.score, z.n_edge, z.n_heads), value(w.value, z.separable ? z.n_radial : z.n_edge, z.n_edge), query(w.query, z.n_edge, z.n_token),
          attended(w.attended, z.n_token, z.n_token), direct(w.direct, z.n_edge, z.n_token), gate(w.gate, z.n_token, z.n_channels), weight(w.weight, z.n_token, 1),
          center(w.center, n_species, z.n_edge), other(w.other, n_species, z.n_edge), factor(z.separable ? w.factor : nullptr, n_species, z.n_edge),
          score_bias(w.score_bias, 1, z.n_heads), value_bias(z.separable ? nullptr : w.value_bias, 1, z.n_edge), query_bias(w.query_bias, 1, z.n_token),
          direct_bias(w.direct_bias, 1, z.n_token), gate_bias(w.gate_bias, 1, z.n_channels), weight_bias(w.weight_bias, 1, 1), angular(ny * Tk) {
        for (int64_t l = 0, m = 0; l <= z.l_max; l++) for (int64_t i = 0; i < 2 * l + 1; i++, m++) std::memcpy(angular + m * Tk, w.angular + l * z.n_token, sizeof(T) * z.n_token);
    }
};

// Harmonics of K directions [ny, K] and their derivatives in x, y, z.
template <class T> void harmonics(int64_t l_max, int64_t K, int64_t ld, const T *x, const T *y, const T *z, T *Y, T *Dx, T *Dy, T *Dz) {
    for (int64_t k = 0; k < K; k++) {
        T re[10], im[10]; re[0] = 1; im[0] = 0;
        for (int m = 1; m <= l_max; m++) { re[m] = x[k] * re[m - 1] - y[k] * im[m - 1]; im[m] = x[k] * im[m - 1] + y[k] * re[m - 1]; }
        double factorial = 1, odd = 1;
        for (int m = 0; m <= l_max; m++) {
            if (m) { factorial *= (2.0 * m - 1) * (2.0 * m); odd *= 2.0 * m - 1; }
            T q = T(odd * std::sqrt((m ? 2.0 : 1.0) / factorial)), dq = 0, p = 0, dp = 0;
            for (int l = m; l <= l_max; l++) {
                if (l > m) {
                    const double norm = std::sqrt(double(l * l - m * m));
                    const T a = T((2 * l - 1) / norm), b = T(l > m + 1 ? std::sqrt(double((l - 1) * (l - 1) - m * m)) / norm : 0.0);
                    const T v = a * z[k] * q - b * p, dv = a * (q + z[k] * dq) - b * dp;
                    p = q; dp = dq; q = v; dq = dv;
                }
                const int64_t base = l * l + l;
                auto put = [&](int64_t i, T f, T fx, T fy) {
                    Y[i * ld + k] = q * f;
                    if (Dx) { Dx[i * ld + k] = q * fx; Dy[i * ld + k] = q * fy; Dz[i * ld + k] = dq * f; }
                };
                if (!m) { put(l == 1 ? 3 : base, 1, 0, 0); continue; }
                const int64_t above = l == 1 ? 1 : base + m, below = l == 1 ? 2 : base - m;
                put(above, re[m], m * re[m - 1], -m * im[m - 1]);
                put(below, im[m], m * im[m - 1], m * re[m - 1]);
            }
        }
    }
}

template <class T> struct Scratch {
    int64_t K; std::vector<Buffer<T>> kept;
    T *take(int64_t n) { kept.emplace_back(n); return kept.back(); }
    T *b, *db, *x0, *x, *s, *w, *alpha, *av, *val, *Y, *Yt, *Dx, *Dy, *Dz, *dens, *q, *att, *qa, *pre, *token, *g, *wt, *e;
    T *dtok, *dq, *dat, *dx, *dval, *dens_bar, *dY, *dw, *dbb, *dalpha, *ux, *uy, *uz, *r, *inside, *dinside, *env1, *wide, *dg;
    std::vector<int64_t> slot, sp;
    Scratch(const Model<T> &m, int64_t K) : K(K) {
        const int64_t Kp = padded(K, W<T>);
        b = take(K * m.pr); db = take(K * m.pr); dbb = take(K * m.pr);
        x0 = take(K * m.E); x = take(K * m.E); av = take(K * m.E); val = take(K * m.E); dx = take(K * m.E); dval = take(K * m.E);
        s = take(K * m.H); w = take(K * m.H); alpha = take(K * m.H); dw = take(K * m.H); dalpha = take(K * m.H);
        Y = take(m.py * Kp); Yt = take(K * m.py); Dx = take(m.py * Kp); Dy = take(m.py * Kp); Dz = take(m.py * Kp); dY = take(K * m.py);
        dens = take(m.py * m.E); dens_bar = take(m.py * m.E); wide = take(m.py * m.Tk);
        q = take(K * m.Tk); att = take(K * m.Tk); qa = take(K * m.Tk); pre = take(K * m.Tk); token = take(K * m.Tk); dtok = take(K * m.Tk); dq = take(K * m.Tk); dat = take(K * m.Tk);
        g = take(K * m.C); dg = take(K * m.C); wt = take(K * W<T>); e = take(Kp);
        ux = take(Kp); uy = take(Kp); uz = take(Kp); r = take(Kp); inside = take(Kp); dinside = take(Kp); env1 = take(Kp);
        slot.resize(K); sp.resize(K);
    }
};

template <class T> struct Atom {
    const Model<T> &m; Scratch<T> &c; int64_t K; int64_t species;
    int64_t heads_edge, heads_token;
    T total[64], esum;
    Atom(const Model<T> &m, Scratch<T> &c) : m(m), c(c), heads_edge(m.s.n_edge / m.s.n_heads), heads_token(m.s.n_token / m.s.n_heads) {}

    void geometry(bool derivative) {
        const double rc = m.s.cutoff; const T norm = T(std::sqrt(2.0 / rc)), step = T(3.14159265358979323846 / rc);
        for (int64_t k = 0; k < K; k++) {
            const T r = c.r[k], theta = r * step, sn = std::sin(theta), cs = std::cos(theta);
            T s0 = 0, s1 = sn, c0 = 1, c1 = cs;
            for (int64_t n = 0; n < m.s.n_radial; n++) {
                c.b[k * m.pr + n] = norm * s1 / r;
                c.db[k * m.pr + n] = norm * (T(n + 1) * step * c1 - s1 / r) / r;
                const T s2 = 2 * cs * s1 - s0, c2 = 2 * cs * c1 - c0; s0 = s1; s1 = s2; c0 = c1; c1 = c2;
            }
            const T x = std::min(T(r / rc), T(1));
            c.inside[k] = 1 + x * x * x * (x * (15 - 6 * x) - 10);
            c.env1[k] = x < 1 ? T((-30 * x * x + 60 * x * x * x - 30 * x * x * x * x) / rc) : T(0);
        }
        const int64_t ld = padded(c.K, W<T>);
        harmonics<T>(m.s.l_max, K, ld, c.ux, c.uy, c.uz, c.Y, derivative ? c.Dx : nullptr, c.Dy, c.Dz);
        for (int64_t k = 0; k < K; k++) for (int64_t i = 0; i < m.ny; i++) c.Yt[k * m.py + i] = c.Y[i * ld + k];
    }

    void scale_heads(const T *src, const T *a, T *dst, int64_t n, int64_t ld, int64_t per) {  // dst = src * a of the head
        for (int64_t k = 0; k < K; k++) for (int64_t j = 0; j < n; j += per) { const T f = a[k * m.H + j / per]; for (int64_t i = j; i < j + per; i++) dst[k * ld + i] = src[k * ld + i] * f; }
    }

    void forward() {
        gemm<T>(c.b, m.pr, m.radial.a, m.E, nullptr, c.x0, m.E, K, m.s.n_radial);
        for (int64_t k = 0; k < K; k++) {
            const T *ce = m.center.a + species * m.center.p, *ot = m.other.a + c.sp[k] * m.other.p;
            for (int64_t j = 0; j < m.E; j += W<T>) { V<T> v = load(c.x0 + k * m.E + j) + load(ce + j) + load(ot + j); store(c.x0 + k * m.E + j, v); store(c.x + k * m.E + j, v * vsigmoid<T>(v)); }
        }
        gemm<T>(c.x, m.E, m.score.a, m.H, m.score_bias.a, c.s, m.H, K, m.s.n_edge);
        for (int64_t h = 0; h < m.s.n_heads; h++) total[h] = 0;
        for (int64_t k = 0; k < K; k++) for (int64_t j = 0; j < m.H; j += W<T>) { V<T> t = vtanh<T>(load(c.s + k * m.H + j)); store(c.s + k * m.H + j, t); store(c.w + k * m.H + j, vexp(t + t) * c.inside[k]); }
        for (int64_t k = 0; k < K; k++) for (int64_t h = 0; h < m.s.n_heads; h++) total[h] += c.w[k * m.H + h];
        for (int64_t k = 0; k < K; k++) for (int64_t h = 0; h < m.s.n_heads; h++) c.alpha[k * m.H + h] = c.w[k * m.H + h] / (1 + total[h]);
        if (m.s.separable) {
            gemm<T>(c.b, m.pr, m.value.a, m.E, nullptr, c.val, m.E, K, m.s.n_radial);
            for (int64_t k = 0; k < K; k++) { const T *f = m.factor.a + c.sp[k] * m.factor.p; for (int64_t j = 0; j < m.E; j++) c.val[k * m.E + j] *= f[j]; }
        } else gemm<T>(c.x, m.E, m.value.a, m.E, m.value_bias.a, c.val, m.E, K, m.s.n_edge);
        scale_heads(c.val, c.alpha, c.av, m.s.n_edge, m.E, heads_edge);
        gemm<T>(c.Y, padded(c.K, W<T>), c.av, m.E, nullptr, c.dens, m.E, m.ny, K);
        for (int64_t i = 0; i < m.ny; i++) for (int64_t t = 0; t < m.s.n_token; t++) c.wide[i * m.Tk + t] = c.dens[i * m.E + t % m.s.n_edge] * m.angular[i * m.Tk + t];
        gemm<T>(c.Yt, m.py, c.wide, m.Tk, nullptr, c.att, m.Tk, K, m.ny);
        gemm<T>(c.x, m.E, m.query.a, m.Tk, m.query_bias.a, c.q, m.Tk, K, m.s.n_edge);
        for (int64_t i = 0; i < K * m.Tk; i += W<T>) store(c.qa + i, load(c.q + i) * load(c.att + i));
        gemm<T>(c.qa, m.Tk, m.attended.a, m.Tk, m.direct_bias.a, c.pre, m.Tk, K, m.s.n_token);
        gemm<T>(c.x, m.E, m.direct.a, m.Tk, nullptr, c.pre, m.Tk, K, m.s.n_edge, true);
        for (int64_t i = 0; i < K * m.Tk; i += W<T>) { V<T> v = load(c.pre + i); store(c.token + i, v * vsigmoid<T>(v)); }
        gemm<T>(c.token, m.Tk, m.gate.a, m.C, m.gate_bias.a, c.g, m.C, K, m.s.n_token);
        for (int64_t i = 0; i < K * m.C; i += W<T>) store(c.g + i, vtanh<T>(load(c.g + i)));
        gemm<T>(c.token, m.Tk, m.weight.a, W<T>, m.weight_bias.a, c.wt, W<T>, K, m.s.n_token);
        esum = 0;
        for (int64_t k = 0; k < K; k++) { V<T> t = vtanh<T>(load(c.wt + k * W<T>)); store(c.wt + k * W<T>, t); V<T> ex = vexp(t + t); c.e[k] = ex[0] * c.inside[k]; esum += c.e[k]; }
    }

    void outputs(T *pooled, T *tot, T *dens, T *gates, int64_t n_slots) {
        for (int64_t t = 0; t < m.s.n_token; t++) pooled[t] = 0;
        for (int64_t k = 0; k < K; k++) for (int64_t t = 0; t < m.s.n_token; t += heads_token) { const T a = c.alpha[k * m.H + t / heads_token]; for (int64_t i = t; i < t + heads_token; i++) pooled[i] += a * c.token[k * m.Tk + i]; }
        for (int64_t h = 0; h < m.s.n_heads; h++) tot[h] = total[h];
        for (int64_t i = 0; i < m.ny; i++) std::memcpy(dens + i * m.s.n_edge, c.dens + i * m.E, sizeof(T) * m.s.n_edge);
        std::memset(gates, 0, sizeof(T) * n_slots * m.s.n_channels);
        const T inv = 1 / (1 + esum);
        for (int64_t k = 0; k < K; k++) { T *o = gates + c.slot[k] * m.s.n_channels; const T a = c.e[k] * inv; for (int64_t i = 0; i < m.s.n_channels; i++) o[i] = c.g[k * m.C + i] * a; }
    }

    void backward(const T *pooled_bar, const T *total_bar, const T *density_bar, const T *gates_bar, T *r_bar, T *unit_bar) {
        const T inv = 1 / (1 + esum); T mean = 0;
        for (int64_t k = 0; k < K; k++) {  // gates = g a, a = e / (1 + sum e)
            const T *o = gates_bar + c.slot[k] * m.s.n_channels, a = c.e[k] * inv; T da = 0;
            for (int64_t i = 0; i < m.s.n_channels; i++) { const T g = c.g[k * m.C + i]; da += o[i] * g; c.dg[k * m.C + i] = o[i] * a * (1 - g * g); }
            for (int64_t i = m.s.n_channels; i < m.C; i++) c.dg[k * m.C + i] = 0;
            c.dinside[k] = da; mean += da * a;
        }
        gemm<T>(c.dg, m.C, m.gate.t, m.Tk, nullptr, c.dtok, m.Tk, K, m.s.n_channels);
        for (int64_t k = 0; k < K; k++) {
            const T de = (c.dinside[k] - mean) * inv, wt = c.wt[k * W<T>];
            c.dinside[k] = c.inside[k] > 0 ? de * c.e[k] / c.inside[k] : T(0);
            const T dwt = 2 * de * c.e[k] * (1 - wt * wt);
            for (int64_t h = 0; h < m.s.n_heads; h++) c.dalpha[k * m.H + h] = 0;
            for (int64_t t = 0; t < m.s.n_token; t += heads_token) {
                const int64_t h = t / heads_token; const T a = c.alpha[k * m.H + h]; T sum = 0;
                for (int64_t i = t; i < t + heads_token; i++) { c.dtok[k * m.Tk + i] += dwt * m.weight.t[i] + a * pooled_bar[i]; sum += pooled_bar[i] * c.token[k * m.Tk + i]; }
                c.dalpha[k * m.H + h] = sum;
            }
        }
        for (int64_t i = 0; i < K * m.Tk; i += W<T>) { V<T> v = load(c.pre + i), s = vsigmoid<T>(v); store(c.dtok + i, load(c.dtok + i) * s * (v * (splat<T>(1) - s) + T(1))); }
        gemm<T>(c.dtok, m.Tk, m.attended.t, m.Tk, nullptr, c.dq, m.Tk, K, m.s.n_token);
        gemm<T>(c.dtok, m.Tk, m.direct.t, m.E, nullptr, c.dx, m.E, K, m.s.n_token);
        for (int64_t i = 0; i < K * m.Tk; i += W<T>) { V<T> d = load(c.dq + i); store(c.dat + i, d * load(c.q + i)); store(c.dq + i, d * load(c.att + i)); }
        gemm<T>(c.dq, m.Tk, m.query.t, m.E, nullptr, c.dx, m.E, K, m.s.n_token, true);
        // attention over the neighbours: att = Yt wide
        {
            for (int64_t k = 0; k < K; k++) for (int64_t i = 0; i < m.ny; i++) {
                V<T> acc = splat<T>(0); const T *d = c.dat + k * m.Tk, *w = c.wide + i * m.Tk;
                for (int64_t t = 0; t < m.Tk; t += W<T>) acc += load(d + t) * load(w + t);
                T sum = 0; for (int j = 0; j < W<T>; j++) sum += acc[j];
                c.dY[k * m.py + i] = sum;
            }
            gemm<T>(c.Y, padded(c.K, W<T>), c.dat, m.Tk, nullptr, c.wide, m.Tk, m.ny, K);
            for (int64_t i = 0; i < m.ny; i++) {
                T *o = c.dens_bar + i * m.E;
                for (int64_t j = 0; j < m.s.n_edge; j++) o[j] = density_bar[i * m.s.n_edge + j];
                for (int64_t t = 0; t < m.s.n_token; t++) o[t % m.s.n_edge] += c.wide[i * m.Tk + t] * m.angular[i * m.Tk + t];
            }
        }
        // density = Y av
        gemm<T>(c.Yt, m.py, c.dens_bar, m.E, nullptr, c.dval, m.E, K, m.ny);
        T away[64];
        for (int64_t h = 0; h < m.s.n_heads; h++) away[h] = 0;
        for (int64_t k = 0; k < K; k++) {
            for (int64_t i = 0; i < m.ny; i++) {
                V<T> acc = splat<T>(0); const T *d = c.dens_bar + i * m.E, *a = c.av + k * m.E;
                for (int64_t j = 0; j < m.E; j += W<T>) acc += load(d + j) * load(a + j);
                T sum = 0; for (int j = 0; j < W<T>; j++) sum += acc[j];
                c.dY[k * m.py + i] += sum;
            }
            for (int64_t j = 0; j < m.s.n_edge; j += heads_edge) {
                const int64_t h = j / heads_edge; const T a = c.alpha[k * m.H + h]; T sum = 0;
                for (int64_t i = j; i < j + heads_edge; i++) { sum += c.dval[k * m.E + i] * c.val[k * m.E + i]; c.dval[k * m.E + i] *= a; }
                c.dalpha[k * m.H + h] += sum; away[h] += c.dalpha[k * m.H + h] * a;
            }
        }
        for (int64_t k = 0; k < K; k++) for (int64_t h = 0; h < m.s.n_heads; h++) {
            const T d = (c.dalpha[k * m.H + h] - away[h]) / (1 + total[h]) + total_bar[h], w = c.w[k * m.H + h], s = c.s[k * m.H + h];
            if (c.inside[k] > 0) c.dinside[k] += d * w / c.inside[k];
            c.dw[k * m.H + h] = 2 * d * w * (1 - s * s);
        }
        gemm<T>(c.dw, m.H, m.score.t, m.E, nullptr, c.dx, m.E, K, m.s.n_heads, true);
        if (m.s.separable) {
            for (int64_t k = 0; k < K; k++) { const T *f = m.factor.a + c.sp[k] * m.factor.p; for (int64_t j = 0; j < m.s.n_edge; j++) c.dval[k * m.E + j] *= f[j]; }
            gemm<T>(c.dval, m.E, m.value.t, m.pr, nullptr, c.dbb, m.pr, K, m.s.n_edge);
        } else gemm<T>(c.dval, m.E, m.value.t, m.E, nullptr, c.dx, m.E, K, m.s.n_edge, true);
        for (int64_t i = 0; i < K * m.E; i += W<T>) { V<T> v = load(c.x0 + i), s = vsigmoid<T>(v); store(c.dx + i, load(c.dx + i) * s * (v * (splat<T>(1) - s) + T(1))); }
        gemm<T>(c.dx, m.E, m.radial.t, m.pr, nullptr, c.dbb, m.pr, K, m.s.n_edge, m.s.separable);
        const int64_t ld = padded(c.K, W<T>);
        for (int64_t k = 0; k < K; k++) {
            T d = c.dinside[k] * c.env1[k];
            for (int64_t n = 0; n < m.s.n_radial; n++) d += c.dbb[k * m.pr + n] * c.db[k * m.pr + n];
            r_bar[c.slot[k]] = d;
            T x = 0, y = 0, z = 0;
            for (int64_t i = 0; i < m.ny; i++) { const T v = c.dY[k * m.py + i]; x += v * c.Dx[i * ld + k]; y += v * c.Dy[i * ld + k]; z += v * c.Dz[i * ld + k]; }
            T *u = unit_bar + 3 * c.slot[k]; u[0] = x; u[1] = y; u[2] = z;
        }
    }

    void gather(const T *r, const T *unit, const int64_t *near, const unsigned char *mask, int64_t n_slots) {
        K = 0;
        for (int64_t j = 0; j < n_slots; j++) if (mask[j]) { c.slot[K] = j; c.sp[K] = near[j]; c.r[K] = r[j]; c.ux[K] = unit[3 * j]; c.uy[K] = unit[3 * j + 1]; c.uz[K] = unit[3 * j + 2]; K++; }
    }
};

template <class T> struct Call {
    const Model<T> &m;
    int64_t n_slots;
    const T *r, *unit;
    const int64_t *species, *near;
    const unsigned char *mask;
    T *pooled, *total, *density, *gates;
    const T *pooled_bar, *total_bar, *density_bar, *gates_bar;
    T *r_bar, *unit_bar;

    void operator()(int64_t first, int64_t last) const {
        Scratch<T> scratch(m, n_slots);
        Atom<T> a(m, scratch);
        const int64_t nd = m.ny * m.s.n_edge, ng = n_slots * m.s.n_channels, nt = m.s.n_token, nh = m.s.n_heads;
        for (int64_t i = first; i < last; i++) {
            const int64_t edge = i * n_slots;
            a.species = species[i];
            a.gather(r + edge, unit + 3 * edge, near + edge, mask + edge, n_slots);
            a.geometry(r_bar != nullptr);
            a.forward();
            if (pooled) a.outputs(pooled + i * nt, total + i * nh, density + i * nd, gates + i * ng, n_slots);
            if (!r_bar) continue;
            std::memset(r_bar + edge, 0, sizeof(T) * n_slots);
            std::memset(unit_bar + 3 * edge, 0, sizeof(T) * 3 * n_slots);
            a.backward(pooled_bar + i * nt, total_bar + i * nh, density_bar + i * nd, gates_bar + i * ng, r_bar + edge, unit_bar + 3 * edge);
        }
    }
};

// Whether there was memory enough. No exception leaves it, which would end the process.
template <class T> bool run(const Call<T> &call, int64_t n_atoms, int64_t n_threads) noexcept {
    constexpr int64_t ATOMS_PER_THREAD = 32;  // at least, for a thread to pay
    n_threads = std::max<int64_t>(1, std::min(n_threads, n_atoms / ATOMS_PER_THREAD));
    std::atomic<bool> good{true};
    auto part = [&](int64_t t) noexcept {
        try { call(t * n_atoms / n_threads, (t + 1) * n_atoms / n_threads); } catch (const std::bad_alloc &) { good = false; }
    };
    std::vector<std::thread> others;
    int64_t started = 1;
    try {
        others.reserve(n_threads);
        for (; started < n_threads; started++) others.emplace_back(part, started);
    } catch (const std::exception &) {}  // no more threads are to be had: this one does the other parts
    part(0);
    for (int64_t t = started; t < n_threads; t++) part(t);
    for (auto &other : others) other.join();
    return good;
}

#define EXPORT(T, NAME)                                                                                                    \
    extern "C" void *make_##NAME(const Sizes *sizes, const Weights<T> *weights, int64_t n_species) noexcept {              \
        try { return new Model<T>(*sizes, *weights, n_species); } catch (const std::bad_alloc &) { return nullptr; }       \
    }                                                                                                                      \
    extern "C" void free_##NAME(void *model) noexcept { delete static_cast<Model<T> *>(model); }                           \
    extern "C" int run_##NAME(const void *model, int64_t n_threads, int64_t n_atoms, int64_t n_slots, const T *r, const T *unit, \
                              const int64_t *species, const int64_t *near, const unsigned char *mask, T *pooled, T *total, T *density, \
                              T *gates, const T *pooled_bar, const T *total_bar, const T *density_bar, const T *gates_bar,  \
                              T *r_bar, T *unit_bar) noexcept {                                                            \
        return run<T>({*static_cast<const Model<T> *>(model), n_slots, r, unit, species, near, mask, pooled, total, density, gates, \
                       pooled_bar, total_bar, density_bar, gates_bar, r_bar, unit_bar}, n_atoms, n_threads);               \
    }
EXPORT(float, f32)
EXPORT(double, f64)
