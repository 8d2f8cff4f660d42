"""One error tree, named by what the caller does next.

    KfnasError                      anything that kfnas raises on purpose
    ├── UserError                   change the input, then call again
    │   ├── ConfigError             a field of the configuration
    │   ├── DataError               the data set
    │   ├── SpaceError              an architecture, a decision or a network argument
    │   ├── BudgetError             no architecture meets the budget
    │   ├── PluginError             a name that no installed package provides
    │   ├── PoolMismatch            a pool of another space, or of children trained for another number of iterations
    │   └── ResultError             a result that answers no open candidate, or contradicts an earlier one
    ├── RetryableError              nothing is wrong with the input: try again later
    │   ├── StoreUnavailable        the blob store does not answer, or answers 5xx
    │   ├── StorageFull             no room left; free some and resume
    │   └── TrackerUnavailable      the tracking server does not answer: the search goes on without it
    ├── ConflictError               another writer was here first
    │   ├── PreconditionFailed      a compare-and-swap lost its race: read again
    │   ├── SearchBusy              another live run holds the search
    │   ├── StaleFence              a later run took the search over: stop without writing
    │   └── ConfigMismatch          the search was started with another configuration
    ├── NotFound                    no such blob, search, record or model
    ├── AccessDenied                the credentials do not allow this
    ├── UnsupportedStore            the store lacks something that correctness needs
    ├── CorruptError                bytes differ from their digest: never loaded
    ├── StateVersionError           written by a newer kfnas: upgrade
    ├── MeasurementError            too many latencies could not be measured
    ├── SearchExhausted             every reachable architecture is known: the search is over
    ├── StepFailed                  a step of a pipeline ended in a way that nobody foresaw: read the run's log
    └── RunInterrupted              the user, or the machine's shutdown, stopped the run: resume it

A message says the problem, the value and the remedy.
"""

from __future__ import annotations


class KfnasError(Exception):
    """Anything that kfnas raises on purpose."""


class UserError(KfnasError):
    """The input must change."""


class ConfigError(UserError):
    """A field of the configuration is wrong; the message names field, value and remedy, one line a field."""


class DataError(UserError):
    """The data set is missing, unreadable or unfit for the task."""


class SpaceError(UserError):
    """An architecture, a decision or a network argument is outside the space."""


class BudgetError(UserError):
    """No architecture meets the budget."""


class PluginError(UserError):
    """No installed package provides the name."""


class PoolMismatch(UserError):
    """The pool is of another space, or holds children that were trained for another number of iterations."""


class ResultError(UserError):
    """A result answers no open candidate, or contradicts an earlier one."""


class RetryableError(KfnasError):
    """The same call may succeed later."""


class StoreUnavailable(RetryableError):
    """The blob store does not answer, or answers with a server error."""


class StorageFull(RetryableError):
    """There is no room left where state is kept."""


class TrackerUnavailable(RetryableError):
    """The tracking server does not answer."""


class ConflictError(KfnasError):
    """Another writer was here first."""


class PreconditionFailed(ConflictError):
    """A compare-and-swap lost its race."""


class SearchBusy(ConflictError):
    """Another live run holds the search."""


class StaleFence(ConflictError):
    """A later run took the search over; this one must stop without writing."""


class ConfigMismatch(ConflictError):
    """The search was started with another configuration."""


class NotFound(KfnasError):
    """No such blob, search, record or model."""


class AccessDenied(KfnasError):
    """The credentials do not allow this."""


class UnsupportedStore(KfnasError):
    """The store lacks something that correctness needs, such as conditional writes."""


class CorruptError(KfnasError):
    """Bytes differ from their digest."""


class StateVersionError(KfnasError):
    """The state was written by a newer version of kfnas."""


class MeasurementError(KfnasError):
    """Too many latencies of a batch could not be measured."""


class SearchExhausted(KfnasError):
    """Every architecture that the search can reach is known."""


class StepFailed(KfnasError):
    """A step of a pipeline ended in a way that nobody foresaw; the run's log holds the traceback."""


class RunInterrupted(KfnasError):
    """The user, or the machine's shutdown, stopped the run."""
