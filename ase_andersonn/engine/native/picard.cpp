// Picard iterations of the cell of nn/equilibrium_cell.py for scalars, and of its adjoint, in one call: structures are so
// small that everything stays in the cache.
#include "kernels.h"

namespace {

template <class T> struct Sizes {
    int64_t n_atoms, n_slots, c, p;
    Sizes(int64_t n_atoms, int64_t n_slots, int64_t c) : n_atoms(n_atoms), n_slots(n_slots), c(c), p(padded(c, W<T>)) {}
};

// Rows of y [n_atoms, ld], of which c numbers are used, from contiguous ones, or back.
template <class T> void spread(const Sizes<T> &s, const T *x, T *y, int64_t ld) {
    for (int64_t i = 0; i < s.n_atoms; i++) std::memcpy(y + i * ld, x + i * s.c, sizeof(T) * s.c);
}
template <class T> void gather(const Sizes<T> &s, const T *x, int64_t ld, T *y) {
    for (int64_t i = 0; i < s.n_atoms; i++) std::memcpy(y + i * s.c, x + i * ld, sizeof(T) * s.c);
}

// A square block [c, c] of a matrix whose rows have `stride` numbers, padded; transposed where asked for.
template <class T> void copy(const Sizes<T> &s, const T *w, int64_t stride, bool transposed, T *b) {
    for (int64_t i = 0; i < s.c; i++) for (int64_t j = 0; j < s.c; j++) b[i * s.p + j] = transposed ? w[j * stride + i] : w[i * stride + j];
}

// m_i = sum_k g_ik s_k, with the gates at place (i, k), or at reverse[i, k].
template <class T> void sum(const Sizes<T> &s, const T *gates, const int64_t *reverse, const int64_t *neighbors, const T *sent, T *out, int64_t ld) {
    for (int64_t i = 0; i < s.n_atoms; i++) {
        T *__restrict o = out + i * ld;
        std::memset(o, 0, sizeof(T) * s.c);
        for (int64_t k = i * s.n_slots; k < (i + 1) * s.n_slots; k++) {
            const T *g = gates + (reverse ? reverse[k] : k) * s.c, *x = sent + neighbors[k] * s.p;
            for (int64_t j = 0; j < s.c; j++) o[j] += g[j] * x[j];
        }
    }
}

// Whether |y - x| <= tol |y| over all rows.
template <class T> bool reached(int64_t n, const T *x, const T *y, double tol) {
    double left = 0, size = 0;
    for (int64_t i = 0; i < n; i++) { const double d = double(y[i]) - double(x[i]); left += d * d; size += double(y[i]) * double(y[i]); }
    return left <= tol * tol * size;
}

// z <- u + W2 phi(v + W1 [m ; z]), phi(x) = scale silu(x), until a step is short; the number of steps.
template <class T> int64_t features(const Sizes<T> &s, int64_t max_steps, double tol, double scale, const T *gates, const T *u, const T *v, const T *send, const T *mix, const T *out, const int64_t *neighbors, T *result) {
    const int64_t n = s.n_atoms, p = s.p;
    Buffer<T> b_send(p * p), b_mix(2 * p * p), b_out(p * p), z(n * p), next(n * p), sent(n * p), both(n * 2 * p), x(n * p);
    copy(s, send, s.c, true, +b_send); copy(s, out, s.c, true, +b_out);
    copy(s, mix, 2 * s.c, true, +b_mix); copy(s, mix + s.c, 2 * s.c, true, b_mix + p * p);
    spread(s, result, +z, p);
    int64_t step = 0;
    for (bool done = false; step < max_steps && !done; step++) {
        gemm<T>(z, p, b_send, p, nullptr, sent, p, n, p);
        sum<T>(s, gates, nullptr, neighbors, sent, both, 2 * p);
        for (int64_t i = 0; i < n; i++) std::memcpy(both + i * 2 * p + p, z + i * p, sizeof(T) * p);
        spread(s, v, +x, p);
        gemm<T>(both, 2 * p, b_mix, p, nullptr, x, p, n, 2 * p, true);
        for (int64_t i = 0; i < n * p; i += W<T>) { const V<T> a = load(x + i); store(x + i, a * vsigmoid<T>(a) * T(scale)); }
        spread(s, u, +next, p);
        gemm<T>(x, p, b_out, p, nullptr, next, p, n, p, true);
        done = reached<T>(n * p, z, next, tol);
        std::memcpy(z, next, sizeof(T) * n * p);
    }
    gather(s, +z, p, result);
    return step;
}

// l <- source + (df/dz)^T l, from l = source, until a step is short; the number of steps.
template <class T> int64_t adjoint(const Sizes<T> &s, int64_t max_steps, double tol, const T *gates, const T *source, const T *slope, const T *send, const T *mix, const T *out, const int64_t *neighbors, const int64_t *reverse, T *result, T *before) {
    const int64_t n = s.n_atoms, p = s.p;
    Buffer<T> b_send(p * p), b_message(p * p), b_own(p * p), b_out(p * p), l(n * p), next(n * p), x(n * p), sent(n * p), received(n * p), slopes(n * p), sources(n * p);
    copy(s, send, s.c, false, +b_send); copy(s, out, s.c, false, +b_out);
    copy(s, mix, 2 * s.c, false, +b_message); copy(s, mix + s.c, 2 * s.c, false, +b_own);
    spread(s, source, +sources, p); spread(s, slope, +slopes, p); spread(s, source, +l, p);
    gather(s, +l, p, before);
    int64_t step = 0;
    for (bool done = false; step < max_steps && !done; step++) {
        gemm<T>(l, p, b_out, p, nullptr, x, p, n, p);
        for (int64_t i = 0; i < n * p; i += W<T>) store(x + i, load(x + i) * load(slopes + i));
        gemm<T>(x, p, b_message, p, nullptr, sent, p, n, p);
        sum<T>(s, gates, reverse, neighbors, sent, received, p);
        std::memcpy(next, sources, sizeof(T) * n * p);
        gemm<T>(x, p, b_own, p, nullptr, next, p, n, p, true);
        gemm<T>(received, p, b_send, p, nullptr, next, p, n, p, true);
        done = reached<T>(n * p, l, next, tol);
        gather(s, +l, p, before);
        std::memcpy(l, next, sizeof(T) * n * p);
    }
    gather(s, +l, p, result);
    return step;
}

template <class Call> int guarded(const Call &call) noexcept {
    try { call(); return 1; } catch (const std::bad_alloc &) { return 0; }
}

}  // namespace

#define EXPORT(T, NAME)                                                                                                    \
    extern "C" int features_##NAME(int64_t n_atoms, int64_t n_slots, int64_t c, int64_t max_steps, double tol, double scale, const T *gates, const T *u, const T *v, const T *send, const T *mix, const T *out, const int64_t *neighbors, T *z, int64_t *steps) noexcept { \
        return guarded([&] { *steps = features(Sizes<T>(n_atoms, n_slots, c), max_steps, tol, scale, gates, u, v, send, mix, out, neighbors, z); }); \
    }                                                                                                                      \
    extern "C" int adjoint_##NAME(int64_t n_atoms, int64_t n_slots, int64_t c, int64_t max_steps, double tol, const T *gates, const T *source, const T *slope, const T *send, const T *mix, const T *out, const int64_t *neighbors, const int64_t *reverse, T *result, T *before, int64_t *steps) noexcept { \
        return guarded([&] { *steps = adjoint(Sizes<T>(n_atoms, n_slots, c), max_steps, tol, gates, source, slope, send, mix, out, neighbors, reverse, result, before); }); \
    }
EXPORT(float, f32)
EXPORT(double, f64)
