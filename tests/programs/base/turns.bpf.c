// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Changes settings in the midst of a program's work: as soon as so much of it is done, before the thread that
 * sees it returns from its system call. How busy the machine is makes no difference.
 */
#include "../../../bpf/dialect/core.h"
#include "../../../bpf/sockredir.h"

#define STEPS 3
#define NEVER (~0ULL)

char _license[] SEC("license") = "Dual BSD/GPL";

/* One change. */
struct turn {
	__u64 goal;    /* made once so many of ... */
	__u64 towards; /* ... these reasons (a bit for each) have been counted; 0: there is no such turn */
	__u64 shown;   /* how many signs there were when it was made; 0: not made */
	struct sockredir_settings steps[STEPS];
};

/* turns.py has the same. */
struct plan {
	__u64 cgroup; /* id */
	__u64 signs;  /* reasons in which whatever happens on a connection shows */
	__u64 cpus;
	struct turn first;
	struct turn second;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct plan);
} plans SEC(".maps");

/* The two of the data path. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sockredir_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SOCKREDIR_REASONS);
	__type(key, __u32);
	__type(value, struct sockredir_count);
} counters SEC(".maps");

struct sum {
	__u64 towards;
	__u64 events;
};

static long add(__u32 index, void *context)
{
	struct sum *sum = context;
	__u32 reason = index % SOCKREDIR_REASONS;
	struct sockredir_count *count;

	if (!(sum->towards >> reason & 1))
		return 0;
	count = bpf_map_lookup_percpu_elem(&counters, &reason, index / SOCKREDIR_REASONS);
	if (count)
		sum->events += count->events;
	return 0;
}

static __u64 counted(const struct plan *plan, __u64 towards)
{
	struct sum sum = {.towards = towards};

	bpf_loop(plan->cpus * SOCKREDIR_REASONS, add, &sum, 0);
	return sum.events;
}

/* Whether it is due, and this thread the one to make it. */
static bool made(const struct plan *plan, struct turn *turn)
{
	__u64 goal = turn->goal;
	__u32 zero = 0;

	if (goal == NEVER || counted(plan, turn->towards) < goal ||
	    !__sync_bool_compare_and_swap(&turn->goal, goal, NEVER))
		return false;
	for (int step = 0; step < STEPS; step++)
		bpf_map_update_elem(&settings, &zero, &turn->steps[step], BPF_ANY);
	turn->shown = counted(plan, plan->signs);
	return true;
}

SEC("tp_btf/sys_exit")
int after_call(void *context)
{
	__u32 zero = 0;
	struct plan *plan = bpf_map_lookup_elem(&plans, &zero);

	(void)context;
	if (!plan || bpf_get_current_cgroup_id() != plan->cgroup)
		return 0;
	if (!made(plan, &plan->first))
		made(plan, &plan->second);
	else if (plan->second.towards) /* due as soon as the first one shows */
		plan->second.goal = counted(plan, plan->second.towards) + 1;
	return 0;
}
