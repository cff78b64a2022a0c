"""An interpreter of our graphs on the CPU that rounds as their types do: the judge of graphs in lower precision.

ONNX Runtime's CPU provider computes float16 graphs in float32, and so can't be it.
"""
