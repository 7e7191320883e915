// Distances as the network is given them, directions, and pair energies (nn/radial.py, nn/zbl.py), and their derivatives.
#include "kernels.h"

namespace {

constexpr double AMPLITUDES[] = {0.1818, 0.5099, 0.2802, 0.02817}, DECAYS[] = {3.2, 0.9423, 0.4029, 0.2016};

enum Column { ONSET, CLAMP, LOWER, PUSH, SCALE, CHARGES, SCREENING, N_COLUMNS };  // of a pair of species

template <class T> struct Value { T f, df; };

// r down to the onset, then bending over to a constant below `clamp` times that.
template <class T> inline Value<T> clamped(T r, T onset, T clamp) {
    if (r >= onset) return {r, 1};
    const T t = std::min(std::max((r / onset - clamp) / (1 - clamp), T(0)), T(1));
    return {onset * (T(0.5) * (1 + clamp) + (1 - clamp) * t * t * t * t * (T(2.5) + t * (t - 3))), t * t * t * (10 + t * (6 * t - 15))};
}

template <class T> inline Value<T> repulsion(Value<T> x, T charges, T screening) {  // Z(x), and its derivative in r
    T sum = 0, slope = 0;
    for (int k = 0; k < 4; k++) { const T e = T(AMPLITUDES[k]) * std::exp(-T(DECAYS[k]) * screening * x.f); sum += e; slope -= T(DECAYS[k]) * screening * e; }
    return {charges / x.f * sum, charges / x.f * (slope - sum / x.f) * x.df};
}

template <class T> struct Call {
    int64_t n_species, n_slots;
    T cutoff, density_push;
    const T *table, *max_density;  // [n_species, n_species, N_COLUMNS], [n_species]
    const T *vectors;
    const int64_t *species, *near;
    const unsigned char *mask;
    T *r, *unit, *pair;
    const T *r_bar, *unit_bar, *pair_bar;
    T *vectors_bar;

    void operator()(int64_t first, int64_t last) const {
        std::vector<T> slopes(n_slots);
        for (int64_t i = first; i < last; i++) {
            T energy = 0, crowd = 0;
            for (int64_t j = 0; j < n_slots; j++) {
                const int64_t e = i * n_slots + j;
                if (!mask[e]) { empty(e); continue; }
                const T *d = vectors + 3 * e, *p = table + (species[i] * n_species + near[e]) * N_COLUMNS;
                const T length = std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]), inverse = 1 / length;
                const Value<T> bent = clamped(length, p[ONSET], p[CLAMP]);
                if (r) { r[e] = bent.f * p[SCALE]; for (int a = 0; a < 3; a++) unit[3 * e + a] = d[a] * inverse; }
                if (vectors_bar) {
                    T *o = vectors_bar + 3 * e, along = 0;
                    const T *u = unit_bar + 3 * e;
                    if (r_bar) {
                        for (int a = 0; a < 3; a++) along += u[a] * d[a];
                        along = r_bar[e] * bent.df * p[SCALE] * inverse - along * inverse * inverse * inverse;
                        for (int a = 0; a < 3; a++) o[a] = u[a] * inverse + along * d[a];
                    } else o[0] = o[1] = o[2] = 0;
                }
                if (!pair && !pair_bar) continue;
                const T x = length * p[SCALE] / cutoff, inside = std::max(1 - x * x, T(0));
                crowd += inside * inside * inside;
                slopes[j] = 0;
                if (length < p[ONSET]) {
                    const Value<T> own = repulsion({length, T(1)}, p[CHARGES], p[SCREENING]), seen = repulsion(bent, p[CHARGES], p[SCREENING]);
                    const Value<T> pushed = repulsion(clamped(length, p[ONSET], p[LOWER]), p[CHARGES], p[SCREENING]);
                    energy += T(0.5) * (own.f - seen.f + p[PUSH] * (pushed.f - seen.f));
                    slopes[j] = T(0.5) * (own.df - seen.df + p[PUSH] * (pushed.df - seen.df));
                }
            }
            if (!pair && !pair_bar) continue;
            const T crushed = std::max(crowd / max_density[species[i]] - 1, T(0));
            if (pair) pair[i] = energy + density_push * crushed * crushed * crushed;
            if (!pair_bar) continue;
            const T push = 3 * density_push * crushed * crushed / max_density[species[i]];
            for (int64_t j = 0; j < n_slots; j++) {
                const int64_t e = i * n_slots + j;
                if (!mask[e] || (slopes[j] == 0 && push == 0)) continue;
                const T *d = vectors + 3 * e, *p = table + (species[i] * n_species + near[e]) * N_COLUMNS;
                const T length = std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]), x = length * p[SCALE] / cutoff, inside = std::max(1 - x * x, T(0));
                const T slope = pair_bar[i] * (slopes[j] - 6 * push * inside * inside * x * p[SCALE] / cutoff) / length;
                for (int a = 0; a < 3; a++) vectors_bar[3 * e + a] += slope * d[a];
            }
        }
    }

    void empty(int64_t e) const {
        if (r) { r[e] = 1; for (int a = 0; a < 3; a++) unit[3 * e + a] = 0; }
        if (vectors_bar) for (int a = 0; a < 3; a++) vectors_bar[3 * e + a] = 0;
    }
};

}  // namespace

#define EXPORT(T, NAME)                                                                                                    \
    extern "C" int geometry_##NAME(int64_t n_species, double cutoff, double density_push, const T *table, const T *max_density, int64_t n_threads, int64_t n_atoms, \
                                   int64_t n_slots, const T *vectors, const int64_t *species, const int64_t *near, const unsigned char *mask, T *r, T *unit, T *pair, \
                                   const T *r_bar, const T *unit_bar, const T *pair_bar, T *vectors_bar) noexcept {        \
        return run(Call<T>{n_species, n_slots, T(cutoff), T(density_push), table, max_density, vectors, species, near, mask, r, unit, pair, r_bar, unit_bar, pair_bar, vectors_bar}, \
                   n_atoms, n_threads);                                                                                    \
    }
EXPORT(float, f32)
EXPORT(double, f64)
