"""Everything that knows verl (0.9.1). Nothing outside this package imports it.

dataset    a mix as verl's RL dataset and as its SFT dataset; images are rendered where they are needed
reward     verl's custom reward function: the plugins' verifiers
recipe     a recipe (YAML in verl's own terms, plus the mix) -> verl's configuration
checks     what would go wrong in the middle of a run
launch     starts verl's own entry points, and follows them
progress   verl's metrics as a line a step
workers    what verl imports in its workers: our rollout and, without an accelerator, our engines
platform   verl's platform for a machine without an accelerator
rollout    a rollout replica on transformers, for such a machine
sampler    verl's replay buffer, polled more often; accuracy by task and waiting times among verl's metrics
agent      verl's agent loop for one answer, timed
adaptive   a dataset that prefers prompts of the kinds that the policy sometimes solves
"""
