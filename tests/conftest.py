"""`pytest --hypothesis-profile benchmark`: the laws on 10,000 examples each."""

from hypothesis import HealthCheck, settings

settings.register_profile("benchmark", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
