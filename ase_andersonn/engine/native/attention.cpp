// Attention of each atom over its neighbours, and the derivative of its outputs in the geometry, atom by atom.
//
// The formulas are those of nn/neighbor_attention.py. Depth first: all layers of one atom before the next atom, so that
// everything in between stays in the first levels of the cache. Nothing is kept between the two passes: the backward pass
// computes the forward one again.
#include "products.h"

namespace {

struct Sizes {
    int64_t n_radial, l_max, n_edge, n_token, n_heads, n_channels, separable;
    double cutoff;
};

template <class T> struct Weights {  // row-major [n_in, n_out]
    const T *center, *other, *factor;                     // rows of species
    const T *radial, *score, *score_bias, *value, *value_bias, *query, *query_bias;
    const T *angular, *attended, *direct, *direct_bias, *gate, *gate_bias, *weight, *weight_bias;
};

template <class T> struct Model {
    Sizes s;
    int64_t ny, E, Tk, C, H, pr, py;
    Matrix<T> radial, score, value, query, attended, direct, gate, weight;
    Rows<T> center, other, factor, score_bias, value_bias, query_bias, direct_bias, gate_bias, weight_bias;
    Buffer<T> angular;                // [ny, Tk] by component
    Products<T> products;
    Model(const Sizes &z, const Weights<T> &w, int64_t n_species, const ProductSizes &sizes, const ProductWeights<T> &weights)
        : s(z), ny((z.l_max + 1) * (z.l_max + 1)), E(padded(z.n_edge, W<T>)), Tk(padded(z.n_token, W<T>)), C(padded(z.n_channels, W<T>)), H(padded(z.n_heads, W<T>)),
          pr(padded(z.n_radial, W<T>)), py(padded(ny, W<T>)),
          radial(w.radial, z.n_radial, z.n_edge), score(w.score, z.n_edge, z.n_heads), value(w.value, z.separable ? z.n_radial : z.n_edge, z.n_edge), query(w.query, z.n_edge, z.n_token),
          attended(w.attended, z.n_token, z.n_token), direct(w.direct, z.n_edge, z.n_token), gate(w.gate, z.n_token, z.n_channels), weight(w.weight, z.n_token, 1),
          center(w.center, n_species, z.n_edge), other(w.other, n_species, z.n_edge), factor(z.separable ? w.factor : nullptr, n_species, z.n_edge),
          score_bias(w.score_bias, 1, z.n_heads), value_bias(z.separable ? nullptr : w.value_bias, 1, z.n_edge), query_bias(w.query_bias, 1, z.n_token),
          direct_bias(w.direct_bias, 1, z.n_token), gate_bias(w.gate_bias, 1, z.n_channels), weight_bias(w.weight_bias, 1, 1), angular(ny * Tk), products(sizes, weights) {
        for (int64_t l = 0, m = 0; l <= z.l_max; l++) for (int64_t i = 0; i < 2 * l + 1; i++, m++) std::memcpy(angular + m * Tk, w.angular + l * z.n_token, sizeof(T) * z.n_token);
    }
};

template <class T> struct Scratch {
    int64_t K; std::vector<Buffer<T>> kept; typename Products<T>::Scratch products;
    T *take(int64_t n) { kept.emplace_back(n); return kept.back(); }
    T *b, *db, *x0, *x, *s, *w, *alpha, *av, *val, *Y, *Yt, *Dx, *Dy, *Dz, *dens, *q, *att, *qa, *pre, *token, *g, *wt, *e;
    T *dtok, *dq, *dat, *dx, *dval, *dens_bar, *dY, *dw, *dbb, *dalpha, *ux, *uy, *uz, *r, *inside, *dinside, *env1, *wide, *dg;
    std::vector<int64_t> slot, sp;
    Scratch(const Model<T> &m, int64_t K) : K(K), products(m.products) {
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
        radial_functions<T>(K, c.r, m.s.cutoff, m.s.n_radial, m.pr, c.b, c.db, c.inside, c.env1);
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

    void outputs(T *pooled, T *tot, T *products, T *gates, int64_t n_slots) {
        for (int64_t t = 0; t < m.s.n_token; t++) pooled[t] = 0;
        for (int64_t k = 0; k < K; k++) for (int64_t t = 0; t < m.s.n_token; t += heads_token) { const T a = c.alpha[k * m.H + t / heads_token]; for (int64_t i = t; i < t + heads_token; i++) pooled[i] += a * c.token[k * m.Tk + i]; }
        for (int64_t h = 0; h < m.s.n_heads; h++) tot[h] = total[h];
        m.products.forward(c.dens, m.E, c.products, products);
        std::memset(gates, 0, sizeof(T) * n_slots * m.s.n_channels);
        const T inv = 1 / (1 + esum);
        for (int64_t k = 0; k < K; k++) { T *o = gates + c.slot[k] * m.s.n_channels; const T a = c.e[k] * inv; for (int64_t i = 0; i < m.s.n_channels; i++) o[i] = c.g[k * m.C + i] * a; }
    }

    void backward(const T *pooled_bar, const T *total_bar, const T *products_bar, const T *gates_bar, T *r_bar, T *unit_bar) {
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
                c.dY[k * m.py + i] = dot<T>(c.dat + k * m.Tk, c.wide + i * m.Tk, m.Tk);
            }
            gemm<T>(c.Y, padded(c.K, W<T>), c.dat, m.Tk, nullptr, c.wide, m.Tk, m.ny, K);
            m.products.prepare(c.dens, m.E, c.products);
            m.products.backward(products_bar, c.products, c.dens_bar, m.E);
            for (int64_t i = 0; i < m.ny; i++) {
                T *o = c.dens_bar + i * m.E;
                for (int64_t t = 0; t < m.s.n_token; t++) o[t % m.s.n_edge] += c.wide[i * m.Tk + t] * m.angular[i * m.Tk + t];
            }
        }
        // density = Y av
        gemm<T>(c.Yt, m.py, c.dens_bar, m.E, nullptr, c.dval, m.E, K, m.ny);
        T away[64];
        for (int64_t h = 0; h < m.s.n_heads; h++) away[h] = 0;
        for (int64_t k = 0; k < K; k++) {
            for (int64_t i = 0; i < m.ny; i++) c.dY[k * m.py + i] += dot<T>(c.dens_bar + i * m.E, c.av + k * m.E, m.E);
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
    T *pooled, *total, *products, *gates;
    const T *pooled_bar, *total_bar, *products_bar, *gates_bar;
    T *r_bar, *unit_bar;

    void operator()(int64_t first, int64_t last) const {
        Scratch<T> scratch(m, n_slots);
        Atom<T> a(m, scratch);
        const int64_t np = m.products.size(), ng = n_slots * m.s.n_channels, nt = m.s.n_token, nh = m.s.n_heads;
        for (int64_t i = first; i < last; i++) {
            const int64_t edge = i * n_slots;
            a.species = species[i];
            a.gather(r + edge, unit + 3 * edge, near + edge, mask + edge, n_slots);
            a.geometry(r_bar != nullptr);
            a.forward();
            if (pooled) a.outputs(pooled + i * nt, total + i * nh, products + i * np, gates + i * ng, n_slots);
            if (!r_bar) continue;
            std::memset(r_bar + edge, 0, sizeof(T) * n_slots);
            std::memset(unit_bar + 3 * edge, 0, sizeof(T) * 3 * n_slots);
            a.backward(pooled_bar + i * nt, total_bar + i * nh, products_bar + i * np, gates_bar + i * ng, r_bar + edge, unit_bar + 3 * edge);
        }
    }
};

}  // namespace

#define EXPORT(T, NAME)                                                                                                    \
    extern "C" void *make_##NAME(const Sizes *sizes, const Weights<T> *weights, int64_t n_species, const ProductSizes *products, const ProductWeights<T> *mix) noexcept { \
        try { return new Model<T>(*sizes, *weights, n_species, *products, *mix); } catch (const std::bad_alloc &) { return nullptr; } \
    }                                                                                                                      \
    extern "C" void free_##NAME(void *model) noexcept { delete static_cast<Model<T> *>(model); }                           \
    extern "C" int attention_##NAME(const void *model, int64_t n_threads, int64_t n_atoms, int64_t n_slots, const T *r, const T *unit, const int64_t *species, \
                                    const int64_t *near, const unsigned char *mask, T *pooled, T *total, T *products, T *gates, const T *pooled_bar, const T *total_bar, \
                                    const T *products_bar, const T *gates_bar, T *r_bar, T *unit_bar) noexcept {           \
        return run(Call<T>{*static_cast<const Model<T> *>(model), n_slots, r, unit, species, near, mask, pooled, total, products, gates, pooled_bar, total_bar, products_bar, gates_bar, \
                           r_bar, unit_bar}, n_atoms, n_threads);                                                          \
    }
EXPORT(float, f32)
EXPORT(double, f64)
