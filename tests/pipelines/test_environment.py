import pytest

from kfnas.config import parse
from kfnas.errors import ConfigError
from kfnas_components.images import STEPS_IMAGE
from kfnas_pipelines.environment import LOCAL, Environment


def test_the_defaults_keep_measuring_pods_on_whole_cores_of_their_own():
    environment = Environment()
    assert environment.image == STEPS_IMAGE
    assert environment.measure is not None
    assert environment.measure.cpu == 2
    assert environment.variables == {"OMP_NUM_THREADS": "1"}


def test_nothing_is_asked_of_the_local_machine():
    assert LOCAL.control is LOCAL.measure is LOCAL.train is None
    assert not LOCAL.variables
    assert not LOCAL.secrets


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "aws_access_key_id", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN"])
def test_a_credential_among_the_variables_is_refused(name):
    with pytest.raises(ConfigError, match=r"looks like a credential, .* keep it in a Kubernetes secret"):
        parse(Environment, {"variables": {name: "value"}})


def test_a_refused_credential_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        parse(Environment, {"variables": {"AWS_SECRET_ACCESS_KEY": "wJalrXUtn"}})
    assert "wJalrXUtn" not in str(caught.value)


@pytest.mark.parametrize(
    "settings", [{"train": {"cpu": 0.5}}, {"train": {"memory": "lots"}}, {"gpu": 1}, {"secrets": [{"name": ""}]}, {"variables": {"A B": "c"}}]
)
def test_settings_that_no_cluster_takes_are_refused(settings):
    with pytest.raises(ConfigError):
        parse(Environment, settings)


def test_a_secret_gives_the_store_its_credentials_unless_told_otherwise():
    (secret,) = parse(Environment, {"secrets": [{"name": "kfnas-s3"}]}).secrets
    assert secret.keys == {"AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY"}
