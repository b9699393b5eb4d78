"""Benchmarks: data sets of questions about images or videos, with the scores that they define.

contract     what a benchmark is: rows of a folder, prompt of a row, score of a completion, headline of all
installed    which benchmarks are installed; loading them
completions  the answer in a completion: letters, numbers
tables       rows and images of TSV, JSON, JSON Lines and Parquet files
video        frames of a video
data         whether a folder has the data of a benchmark
questions    the questions as prompts with images
run          queries a model with the questions, scores the completions and writes the results
statistics   headline with interval, blind baseline, comparison of two results
published    the published figures
report       summary and HTML page

All others are benchmarks. Each is a value ``benchmark`` of a module behind the entry-point group ``ssrl.benchmarks``.
"""
