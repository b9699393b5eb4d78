"""Training with verl 0.9.1. No other package imports verl.

recipe     from a recipe (YAML with verl's own keys, and the mix) to verl's configuration
checks     checks of a run before it starts
launch     starts verl's entry points and reads their metrics
processes  verl in a session of its own, with everything that it starts, and how it is ended
stopping   ends a run after its step, with a checkpoint, on request
ignored    settings that verl accepts and that have no effect
form       a right completion under the model's chat template: it must earn the whole reward
summary    what a run will do and need, for a dry run
memory     memory of a run on each GPU, computed; sizes has the sizes of published models
dataset    a mix as verl's datasets for reinforcement learning and for SFT; renders images where they are needed
adaptive   a dataset that prefers prompts of the kinds that the policy sometimes solves
progress   verl's metrics as one line a step
workers    registrations that verl imports in its workers: rollout, agent loop, engines for the CPU
frozen     the vision tower excluded from training
agent      verl's agent loop for a single answer, with a seed for each rollout and timing
rollout    a rollout replica on transformers, for machines without an accelerator
sampler    verl's replay buffer: polled more often, batches in a fixed order, metrics by task and level
sharing    one computation of each prompt for all of its rollouts, on a CPU
platform   verl's platform for a machine without an accelerator
weights    new weights for verl's vLLM server: a socket of each run, and an end for failed updates
vllm_cpu   what vLLM's rollouts need on a machine without an accelerator
upstream   everything of verl and vLLM that we use, and a comparison with the installed versions
"""
