"""The local platform: runs the manifests of knative/base on one machine, without a cluster.

See `python -m knative.local --help`.
"""
