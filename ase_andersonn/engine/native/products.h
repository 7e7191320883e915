// Power spectrum and bispectrum of one atom's density, as in nn/invariants.py, and their derivative.
#pragma once
#include "kernels.h"

struct ProductSizes { int64_t l_max, n_pairs, n_channels, n_mixed, n_triples, n_entries; };  // n_triples is 0 without bispectrum

template <class T> struct ProductWeights {
    const T *mix;                // [l_max, n_channels, n_mixed]
    const int64_t *entries;      // [n_entries, 4]: the triple, and its three components
    const T *coefficients;       // [n_entries]
};

template <class T> struct Products {
    ProductSizes s; ProductWeights<T> w; int64_t ny, B, ring;  // the entries belong to the caller
    std::vector<Matrix<T>> mix;
    Products(const ProductSizes &z, const ProductWeights<T> &given)
        : s(z), w(given), ny((z.l_max + 1) * (z.l_max + 1)), B(padded(z.n_mixed, W<T>)), ring(z.n_channels + z.n_pairs - 1) {
        if (z.n_triples) for (int64_t l = 0; l < z.l_max; l++) mix.emplace_back(w.mix + l * z.n_channels * z.n_mixed, z.n_channels, z.n_mixed);
    }
    int64_t n_power() const { return (s.l_max + 1) * s.n_pairs * s.n_channels; }
    int64_t size() const { return n_power() + s.n_triples * s.n_mixed; }

    struct Scratch {
        Buffer<T> extended, extended_bar, mixed, mixed_bar, found;
        explicit Scratch(const Products &p) : extended(p.ny * p.ring), extended_bar(p.ny * p.ring), mixed(p.ny * p.B), mixed_bar(p.ny * p.B), found(p.B * std::max<int64_t>(p.s.n_triples, 1)) {}
    };

    // The density [ny, ld] with its last n_pairs - 1 channels once more in front of the others, and its mixed channels.
    void prepare(const T *density, int64_t ld, Scratch &c) const {
        const int64_t before = s.n_pairs - 1;
        for (int64_t i = 0; i < ny; i++) {
            std::memcpy(c.extended + i * ring + before, density + i * ld, sizeof(T) * s.n_channels);
            for (int64_t j = 0; j < before; j++) c.extended[i * ring + j] = density[i * ld + (s.n_channels - before + j % s.n_channels) % s.n_channels];
        }
        if (s.n_triples) for (int64_t l = 1; l <= s.l_max; l++) gemm<T>(density + l * l * ld, ld, mix[l - 1].a, B, nullptr, c.mixed + l * l * B, B, 2 * l + 1, s.n_channels);
    }

    void forward(const T *density, int64_t ld, Scratch &c, T *out) const {
        prepare(density, ld, c);
        const int64_t before = s.n_pairs - 1, n = s.n_channels;
        for (int64_t l = 0; l <= s.l_max; l++) for (int64_t k = 0; k < s.n_pairs; k++) {
            T *__restrict o = out + (l * s.n_pairs + k) * n;
            std::memset(o, 0, sizeof(T) * n);
            for (int64_t i = l * l; i < (l + 1) * (l + 1); i++) {
                const T *a = c.extended + i * ring + before, *b = a - k;
                for (int64_t j = 0; j < n; j++) o[j] += a[j] * b[j];
            }
        }
        if (!s.n_triples) return;
        std::memset(c.found, 0, sizeof(T) * B * s.n_triples);
        for (int64_t e = 0; e < s.n_entries; e++) {
            const int64_t *at = w.entries + 4 * e; const T f = w.coefficients[e];
            T *o = c.found + at[0] * B; const T *x = c.mixed + at[1] * B, *y = c.mixed + at[2] * B, *z = c.mixed + at[3] * B;
            for (int64_t j = 0; j < B; j += W<T>) store(o + j, load(o + j) + load(x + j) * load(y + j) * load(z + j) * f);
        }
        for (int64_t t = 0; t < s.n_triples; t++) std::memcpy(out + n_power() + t * s.n_mixed, c.found + t * B, sizeof(T) * s.n_mixed);
    }

    // Of the last density prepared: cotangents of the products to those of the density [ny, ld], which are replaced.
    void backward(const T *out_bar, Scratch &c, T *density_bar, int64_t ld) const {
        const int64_t before = s.n_pairs - 1, n = s.n_channels;
        std::memset(c.extended_bar, 0, sizeof(T) * ny * ring);
        for (int64_t l = 0; l <= s.l_max; l++) for (int64_t k = 0; k < s.n_pairs; k++) {
            const T *__restrict d = out_bar + (l * s.n_pairs + k) * n;
            for (int64_t i = l * l; i < (l + 1) * (l + 1); i++) {
                const T *a = c.extended + i * ring + before, *b = a - k; T *a_bar = c.extended_bar + i * ring + before, *b_bar = a_bar - k;
                if (!k) { for (int64_t j = 0; j < n; j++) a_bar[j] += 2 * d[j] * a[j]; continue; }
                for (int64_t j = 0; j < n; j++) a_bar[j] += d[j] * b[j];
                for (int64_t j = 0; j < n; j++) b_bar[j] += d[j] * a[j];
            }
        }
        for (int64_t i = 0; i < ny; i++) {
            std::memcpy(density_bar + i * ld, c.extended_bar + i * ring + before, sizeof(T) * n);
            for (int64_t j = 0; j < before; j++) density_bar[i * ld + (n - before + j % n) % n] += c.extended_bar[i * ring + j];
        }
        if (!s.n_triples) return;
        for (int64_t t = 0; t < s.n_triples; t++) std::memcpy(c.found + t * B, out_bar + n_power() + t * s.n_mixed, sizeof(T) * s.n_mixed);
        std::memset(c.mixed_bar, 0, sizeof(T) * ny * B);
        for (int64_t e = 0; e < s.n_entries; e++) {
            const int64_t *at = w.entries + 4 * e; const T f = w.coefficients[e];
            const T *o = c.found + at[0] * B, *x = c.mixed + at[1] * B, *y = c.mixed + at[2] * B, *z = c.mixed + at[3] * B;
            T *x_bar = c.mixed_bar + at[1] * B, *y_bar = c.mixed_bar + at[2] * B, *z_bar = c.mixed_bar + at[3] * B;
            for (int64_t j = 0; j < B; j += W<T>) {
                const V<T> d = load(o + j) * f, u = load(x + j), v = load(y + j), q = load(z + j);
                store(x_bar + j, load(x_bar + j) + d * v * q);
                store(y_bar + j, load(y_bar + j) + d * u * q);
                store(z_bar + j, load(z_bar + j) + d * u * v);
            }
        }
        for (int64_t l = 1; l <= s.l_max; l++) gemm<T>(c.mixed_bar + l * l * B, B, mix[l - 1].t, mix[l - 1].p_in, nullptr, density_bar + l * l * ld, ld, 2 * l + 1, s.n_mixed, true);
    }
};
