"""Models of transformers, without verl.

completions   completions of a model for a batch of prompts
loading       processor and weights of a model; what is wrong with a model that cannot be loaded
tokens        length of a prompt in tokens, counted or estimated
vllm          what vLLM must know of a mix, whether it can run here, why it ended
tiny          a tiny untrained model for tests and demonstrations
"""
