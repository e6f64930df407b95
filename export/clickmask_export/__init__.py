"""From a checkpoint to a verified engine bundle.

``command`` parses, ``build`` orders the steps: ``recipes`` (how the network will be used), ``graphs`` (the
network as flat graphs, with the precision policy), ``onnx_graph`` and ``torchscript`` (artefacts),
``graph_lint`` (faults that parity on friendly images would miss), ``verify`` (parity with torch), ``staging``
and ``bundle_writer``.
"""
