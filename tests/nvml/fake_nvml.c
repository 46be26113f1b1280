/* A STAND-IN for NVIDIA's libnvidia-ml.so.1, for tests on machines without a GPU. It is not NVIDIA's code.
 *
 * It has the functions of NVML that ./kit calls through the official binding, with the signatures of nvml.h.
 * Every answer comes from the file that FAKE_NVML_MACHINE names, a line an answer:
 *
 *     init 0                      a value
 *     0/name NVIDIA T4            of card 0
 *     0/mig/1/name …              of the slot 1 for MIG instances on card 0
 *     0/compute 4194400:1048576   processes as pid:bytes, bytes "-" where the driver does not tell
 *     0/memory !3                 an NVML error instead of an answer
 *     init hang                   never answers, as a driver in trouble
 *
 * A line that is not there is NVML_ERROR_NOT_SUPPORTED. tests/nvml/__init__.py writes the file from
 * the machines of tests/machines.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, UNKNOWN = 999 };
enum { CARDS = 64, SLOTS = 8, PATH = 16 };

typedef int nvmlReturn_t;
typedef char *nvmlDevice_t; /* the start of the card's lines, such as "0" or "0/mig/1" */
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t; /* of the second and third version of the calls */

static char *text; /* the whole file; NULL before nvmlInit */
static char cards[CARDS][PATH], instances[CARDS][SLOTS][PATH];

/* Copies the answer to `value`. */
static nvmlReturn_t answer(const char *device, const char *field, char *value, size_t size) {
    char key[64];
    if (!text) return UNINITIALIZED;
    int length = snprintf(key, sizeof key, "%s%s%s ", device ? device : "", device ? "/" : "", field);
    const char *line = text;
    while (line && strncmp(line, key, length)) {
        line = strchr(line, '\n');
        if (line) line++;
    }
    if (!line) return NOT_SUPPORTED;
    line += length;
    if (*line == '!') return atoi(line + 1);
    size_t end = strcspn(line, "\n");
    if (end >= size) return TOO_SMALL;
    memcpy(value, line, end);
    value[end] = 0;
    while (!strcmp(value, "hang")) pause();
    return OK;
}

static nvmlReturn_t numbers(const char *device, const char *field, unsigned long long *first, int count) {
    char value[256], *at = value;
    nvmlReturn_t code = answer(device, field, value, sizeof value);
    for (int i = 0; code == OK && i < count; i++) first[i] = strtoull(at, &at, 10);
    return code;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    const char *path = getenv("FAKE_NVML_MACHINE");
    FILE *file = path ? fopen(path, "r") : NULL;
    unsigned long long code = 0;
    if (!file) return UNKNOWN;
    free(text);
    text = calloc(1, 1 << 16);
    size_t size = fread(text, 1, (1 << 16) - 1, file);
    fclose(file);
    if (!size) return UNKNOWN;
    nvmlReturn_t failed = numbers(NULL, "init", &code, 1);
    return failed ? failed : (nvmlReturn_t)code;
}

nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlShutdown(void) { return text ? OK : UNINITIALIZED; }

const char *nvmlErrorString(nvmlReturn_t code) {
    switch (code) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    default: return "Unknown Error";
    }
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int size) { return answer(NULL, "driver", version, size); }

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    unsigned long long value;
    nvmlReturn_t code = numbers(NULL, "cuda", &value, 1);
    if (code == OK) *version = (int)value;
    return code;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    unsigned long long value;
    nvmlReturn_t code = numbers(NULL, "cuda_v2", &value, 1);
    if (code == OK) *version = (int)value;
    return code;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    unsigned long long value;
    nvmlReturn_t code = numbers(NULL, "count", &value, 1);
    if (code == OK) *count = (unsigned int)value;
    return code;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    unsigned long long value = 0;
    unsigned int count = 0;
    nvmlReturn_t code = nvmlDeviceGetCount_v2(&count);
    if (code != OK) return code;
    if (index >= count || index >= CARDS) return INVALID;
    snprintf(cards[index], PATH, "%u", index);
    code = numbers(cards[index], "handle", &value, 1);
    *device = cards[index];
    return code == NOT_SUPPORTED ? OK : code;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int size) { return answer(device, "name", name, size); }
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int size) { return answer(device, "uuid", uuid, size); }

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    return numbers(device, "memory", &memory->total, 3);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    unsigned long long value[2];
    nvmlReturn_t code = numbers(device, "capability", value, 2);
    if (code == OK) *major = (int)value[0], *minor = (int)value[1];
    return code;
}

/* First call with room for none: TOO_SMALL and how many there are. */
static nvmlReturn_t processes(nvmlDevice_t device, const char *field, unsigned int *room, nvmlProcessInfo_t *list) {
    char value[4096];
    nvmlReturn_t code = answer(device, field, value, sizeof value);
    unsigned int count = 0, given = *room;
    if (code != OK) return code;
    for (char *word = strtok(value, " "); word; word = strtok(NULL, " "), count++) {
        if (count >= given || !list) continue;
        char *bytes = strchr(word, ':') + 1;
        list[count] = (nvmlProcessInfo_t){.pid = (unsigned int)atol(word), .gpuInstanceId = ~0u, .computeInstanceId = ~0u};
        list[count].usedGpuMemory = *bytes == '-' ? ~0ull : strtoull(bytes, NULL, 10);
    }
    *room = count;
    return count > given ? TOO_SMALL : OK;
}

#define PROCESSES(KIND, FIELD)                                                                                     \
    nvmlReturn_t nvmlDeviceGet##KIND##RunningProcesses_v3(nvmlDevice_t d, unsigned int *n, nvmlProcessInfo_t *p) { \
        return processes(d, FIELD, n, p);                                                                          \
    }                                                                                                              \
    nvmlReturn_t nvmlDeviceGet##KIND##RunningProcesses_v2(nvmlDevice_t d, unsigned int *n, nvmlProcessInfo_t *p) { \
        return processes(d, FIELD "_v2", n, p);                                                                    \
    }
PROCESSES(Compute, "compute")
PROCESSES(Graphics, "graphics")

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    unsigned long long value;
    nvmlReturn_t code = numbers(device, "mig_mode", &value, 1);
    if (code == OK) *current = *pending = (unsigned int)value;
    return code;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
    unsigned long long value;
    nvmlReturn_t code = numbers(device, "mig_slots", &value, 1);
    if (code == OK) *count = (unsigned int)value;
    return code;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *instance) {
    unsigned int count = 0, card = (unsigned int)atoi(device);
    char name[96];
    nvmlReturn_t code = nvmlDeviceGetMaxMigDeviceCount(device, &count);
    if (code != OK) return code;
    if (index >= count || index >= SLOTS || card >= CARDS) return INVALID;
    snprintf(instances[card][index], PATH, "%u/mig/%u", card, index);
    *instance = instances[card][index];
    return answer(*instance, "name", name, sizeof name) == OK ? OK : NOT_FOUND;
}
