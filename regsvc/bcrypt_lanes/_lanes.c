/* Several bcrypts of one cost at once, in one thread.

   N. Provos and D. Mazieres, "A Future-Adaptable Password Scheme", USENIX 1999. One bcrypt is a chain of table look-ups,
   each of which waits for the one before it, so most of a core idles. Here each step is done for every lane before the
   next step, and the waits of the lanes overlap. Nothing else differs: the results are those of any other bcrypt.

   Rule 1. Everything secret is on this thread's stack while the GIL is released, and wiped before it is taken again.
   Rule 2. No branch and no address depends on a secret but the look-ups that Blowfish is made of.
   Rule 3. libc and the stable ABI of Python 3.11, nothing else. What is assembly on one machine is C for all others,
           and there too with LANES_PLAIN_C, which tests define. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "pi.h"

#define LANES_MAX 6
#define KEY_MAX 72  /* octets, with the NUL that ends a shorter password */
#define SALT 16     /* octets */
#define DIGEST 24   /* octets, of which bcrypt shows 23 */
#define ROUNDS 16
#define P_WORDS 18
#define S_WORDS 1024
#define COST_MIN 4
#define COST_MAX 31

#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

typedef struct {
    uint32_t s[LANES_MAX][S_WORDS];
    uint32_t p[LANES_MAX][P_WORDS];
    uint32_t key[LANES_MAX][P_WORDS];
    uint32_t salt[LANES_MAX][P_WORDS]; /* the four words of the salt, over and over */
    uint32_t left[LANES_MAX], right[LANES_MAX];
    uint8_t digest[LANES_MAX][DIGEST];
} State;

static uint32_t big_endian(const uint8_t *from) {
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

/* Wipe what the compiler believes nobody reads again. */
static void wipe(void *memory, size_t size) {
    volatile uint8_t *at = memory;
    while (size--)
        *at++ = 0;
}

/* Return `half` with what a round adds to it: the other half, `x`, by the lane's tables, and a word of its key.

   With several lanes a core waits little, and it is the number of instructions that counts: 12 here, 17 to 20 as
   compilers write it on x86-64. They keep an address for each lane, so that registers run out, copy the key's words
   aside, and take two octets of a word by shifts that x86 has names for. Hence assembly, and C where that is not. */
INLINE uint32_t mixed(const State *state, const int lane, const int word, uint32_t half, uint32_t x) {
#if defined(__x86_64__) && defined(__LP64__) && defined(__GNUC__) && defined(__OPTIMIZE__) && !defined(LANES_PLAIN_C)
    uint64_t low, high, sum; /* indices, which have 64 bits; `low` has a name for its second octet */
    __asm__("movl %[x], %k[low]\n\t"
            "xorl %[word], %[half]\n\t"
            "movzbl %h[low], %k[high]\n\t"
            "shrl $16, %k[low]\n\t"
            "movzbl %h[low], %k[sum]\n\t"
            "movzbl %b[low], %k[low]\n\t"
            "movl %c[box](%[state],%[sum],4), %k[sum]\n\t"
            "addl %c[box]+1024(%[state],%[low],4), %k[sum]\n\t"
            "movzbl %b[x], %k[low]\n\t"
            "xorl %c[box]+2048(%[state],%[high],4), %k[sum]\n\t"
            "addl %c[box]+3072(%[state],%[low],4), %k[sum]\n\t"
            "xorl %k[sum], %[half]"
            : [half] "+&r"(half), [low] "=&Q"(low), [high] "=&R"(high), [sum] "=&R"(sum)
            : [x] "r"(x), [state] "r"(state), [box] "i"(offsetof(State, s) + (size_t)lane * sizeof state->s[0]),
              [word] "m"(state->p[lane][word]), "m"(state->s[lane])
            : "cc");
    return half;
#else
    const uint32_t *s = state->s[lane];
    return half ^ state->p[lane][word] ^
           (((s[x >> 24] + s[256 + (x >> 16 & 255)]) ^ s[512 + (x >> 8 & 255)]) + s[768 + (x & 255)]);
#endif
}

/* `n` is a constant wherever these are called, and `lane` wherever something is done for each. A loop over lanes would
   have to be unrolled, else the halves are in memory and not in registers, and not every compiler does that. */

#define LANE(number, ...)       \
    if (n > number) {           \
        enum { lane = number }; \
        __VA_ARGS__;            \
    }
#define EACH_LANE(...)                                             \
    LANE(0, __VA_ARGS__) LANE(1, __VA_ARGS__) LANE(2, __VA_ARGS__) \
    LANE(3, __VA_ARGS__) LANE(4, __VA_ARGS__) LANE(5, __VA_ARGS__)

INLINE void encipher(State *state, uint32_t *left, uint32_t *right, const int n) {
    EACH_LANE(left[lane] ^= state->p[lane][0])
#pragma GCC unroll 16
    for (int round = 1; round <= ROUNDS; round += 2) {
        EACH_LANE(right[lane] = mixed(state, lane, round, right[lane], left[lane]))
        EACH_LANE(left[lane] = mixed(state, lane, round + 1, left[lane], right[lane]))
    }
    EACH_LANE({
        uint32_t swapped = left[lane];
        left[lane] = right[lane] ^ state->p[lane][ROUNDS + 1];
        right[lane] = swapped;
    })
}

INLINE void expand(State *state, const uint32_t (*key)[P_WORDS], const int n) {
    uint32_t left[LANES_MAX] = {0}, right[LANES_MAX] = {0};
    EACH_LANE(for (int i = 0; i < P_WORDS; i++) state->p[lane][i] ^= key[lane][i])
    for (int i = 0; i < P_WORDS; i += 2) {
        encipher(state, left, right, n);
        EACH_LANE(state->p[lane][i] = left[lane], state->p[lane][i + 1] = right[lane])
    }
    for (int i = 0; i < S_WORDS; i += 2) {
        encipher(state, left, right, n);
        EACH_LANE(state->s[lane][i] = left[lane], state->s[lane][i + 1] = right[lane])
    }
}

/* The first expansion of all mixes the salt in, a word before each half. */
INLINE void expand_salted(State *state, const int n) {
    uint32_t left[LANES_MAX] = {0}, right[LANES_MAX] = {0};
    EACH_LANE(for (int i = 0; i < P_WORDS; i++) state->p[lane][i] ^= state->key[lane][i])
    for (int i = 0; i < P_WORDS; i += 2) {
        EACH_LANE(left[lane] ^= state->salt[lane][i & 3], right[lane] ^= state->salt[lane][(i & 3) + 1])
        encipher(state, left, right, n);
        EACH_LANE(state->p[lane][i] = left[lane], state->p[lane][i + 1] = right[lane])
    }
    for (int i = 0; i < S_WORDS; i += 2) { /* 18 words were taken, so this begins with the salt's third */
        EACH_LANE(left[lane] ^= state->salt[lane][(i + 2) & 3], right[lane] ^= state->salt[lane][((i + 2) & 3) + 1])
        encipher(state, left, right, n);
        EACH_LANE(state->s[lane][i] = left[lane], state->s[lane][i + 1] = right[lane])
    }
}

INLINE void hash_lanes(State *state, uint64_t rounds, const int n) {
    static const uint8_t text[DIGEST + 1] = "OrpheanBeholderScryDoubt";
    EACH_LANE({
        memcpy(state->p[lane], PI, sizeof state->p[lane]);
        memcpy(state->s[lane], PI + P_WORDS, sizeof state->s[lane]);
    })
    expand_salted(state, n);
    while (rounds--) {
        expand(state, state->key, n);
        expand(state, state->salt, n);
    }
    for (int block = 0; block < DIGEST; block += 8) {
        uint32_t left[LANES_MAX], right[LANES_MAX];
        EACH_LANE(left[lane] = big_endian(text + block), right[lane] = big_endian(text + block + 4))
        for (int i = 0; i < 64; i++)
            encipher(state, left, right, n);
        EACH_LANE(for (int i = 0; i < 4; i++) {
            state->digest[lane][block + i] = (uint8_t)(left[lane] >> (24 - 8 * i));
            state->digest[lane][block + 4 + i] = (uint8_t)(right[lane] >> (24 - 8 * i));
        })
    }
}

#define FOR_LANES(n) \
    static void hash_##n(State *state, uint64_t rounds) { hash_lanes(state, rounds, n); }
FOR_LANES(1) FOR_LANES(2) FOR_LANES(3) FOR_LANES(4) FOR_LANES(5) FOR_LANES(6)

static void (*const HASH[LANES_MAX])(State *, uint64_t) = {hash_1, hash_2, hash_3, hash_4,
                                                          hash_5, hash_6};

/* Take a key over and over until all words are full. */
static void load_words(uint32_t words[P_WORDS], const uint8_t *key, size_t size) {
    size_t at = 0;
    for (int i = 0; i < P_WORDS; i++) {
        uint32_t word = 0;
        for (int j = 0; j < 4; j++, at = at + 1 < size ? at + 1 : 0)
            word = word << 8 | key[at];
        words[i] = word;
    }
}

/* Load one password and salt; false with a Python error set. */
static int load(State *state, int lane, PyObject *password, PyObject *salt) {
    char *key_text, *salt_text;
    Py_ssize_t key_size, salt_size;
    if (PyBytes_AsStringAndSize(password, &key_text, &key_size) || PyBytes_AsStringAndSize(salt, &salt_text, &salt_size))
        return 0;
    if (key_size > KEY_MAX) {
        PyErr_SetString(PyExc_ValueError, "a password has at most 72 octets");
        return 0;
    }
    if (salt_size != SALT) {
        PyErr_SetString(PyExc_ValueError, "a salt has 16 octets");
        return 0;
    }
    uint8_t key[KEY_MAX + 1] = {0}; /* the NUL that ends it belongs to the key, where there is room */
    memcpy(key, key_text, (size_t)key_size);
    load_words(state->key[lane], key, key_size < KEY_MAX ? (size_t)key_size + 1 : KEY_MAX);
    load_words(state->salt[lane], (const uint8_t *)salt_text, SALT);
    wipe(key, sizeof key);
    return 1;
}

static PyObject *digests(const State *state, int n) {
    PyObject *found = PyTuple_New(n);
    for (int lane = 0; found != NULL && lane < n; lane++) {
        PyObject *digest = PyBytes_FromStringAndSize((const char *)state->digest[lane], DIGEST - 1);
        if (digest == NULL || PyTuple_SetItem(found, lane, digest) != 0)
            Py_CLEAR(found);
    }
    return found;
}

PyDoc_STRVAR(digest_many_doc,
             "digest_many(cost, passwords, salts)\n--\n\n"
             "Return bcrypt's 23 octets for each password and salt, all at once, without the GIL.\n\n"
             "cost: 4 to 31. passwords: a tuple of 1 to 6 bytes objects of at most 72 octets. salts: as many, of 16\n"
             "octets. Raises ValueError and TypeError.");

static PyObject *digest_many(PyObject *Py_UNUSED(module), PyObject *arguments) {
    int cost;
    PyObject *passwords, *salts;
    if (!PyArg_ParseTuple(arguments, "iO!O!", &cost, &PyTuple_Type, &passwords, &PyTuple_Type, &salts))
        return NULL;
    Py_ssize_t n = PyTuple_Size(passwords);
    if (cost < COST_MIN || cost > COST_MAX)
        return PyErr_Format(PyExc_ValueError, "the cost is 4 to 31, not %d", cost);
    if (n < 1 || n > LANES_MAX || n != PyTuple_Size(salts))
        return PyErr_Format(PyExc_ValueError, "1 to 6 passwords and as many salts, not %zd and %zd", n,
                            PyTuple_Size(salts));
    State state;
    PyObject *found = NULL;
    int loaded = 1;
    for (int lane = 0; loaded && lane < n; lane++)
        loaded = load(&state, lane, PyTuple_GetItem(passwords, lane), PyTuple_GetItem(salts, lane));
    if (loaded) {
        Py_BEGIN_ALLOW_THREADS
        HASH[n - 1](&state, (uint64_t)1 << cost);
        Py_END_ALLOW_THREADS
        found = digests(&state, (int)n);
    }
    wipe(&state, sizeof state);
    return found;
}

static PyMethodDef methods[] = {{"digest_many", digest_many, METH_VARARGS, digest_many_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_lanes",
    .m_doc = "Several bcrypts of one cost at once, in one thread.",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__lanes(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddIntConstant(module, "LANES_MAX", LANES_MAX) != 0)
        Py_CLEAR(module);
    return module;
}
