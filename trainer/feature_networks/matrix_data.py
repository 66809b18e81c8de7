"""Matrices in MediaPipe's protocol buffer `MatrixData`.

https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/framework/formats/matrix_data.proto
and matrix.cc beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

_FIELD = descriptor_pb2.FieldDescriptorProto
_ROW_MAJOR = 1


def _build() -> Any:
    # In a pool of its own, so that it never collides with an installed MediaPipe's.
    file = descriptor_pb2.FileDescriptorProto(
        name="nextvlad/matrix_data.proto", package="nextvlad", syntax="proto2"
    )
    message = file.message_type.add(name="MatrixData")
    for number, name, kind in (
        (1, "rows", _FIELD.TYPE_INT32),
        (2, "cols", _FIELD.TYPE_INT32),
        (4, "layout", _FIELD.TYPE_INT32),  # an enumeration: the same on the wire
    ):
        message.field.add(name=name, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
    data = message.field.add(
        name="packed_data", number=3, type=_FIELD.TYPE_FLOAT, label=_FIELD.LABEL_REPEATED
    )
    data.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nextvlad.MatrixData"))


MatrixData: Any = _build()


def parse_matrix(content: bytes) -> NDArray[np.float32]:
    """The matrix [rows, cols] in the bytes of a `MatrixData`.

    Raises:
        ValueError: the bytes are none, or have not rows · cols numbers.
    """
    try:
        message = MatrixData.FromString(content)
    except DecodeError:
        raise ValueError(
            f"expected a MatrixData, found {len(content)} bytes that are none"
        ) from None
    data = np.asarray(message.packed_data, np.float32)
    if message.rows < 0 or message.cols < 0 or message.rows * message.cols != len(data):
        raise ValueError(
            f"expected {message.rows} × {message.cols} numbers in the MatrixData, found {len(data)}"
        )
    order: Any = "C" if message.layout == _ROW_MAJOR else "F"
    return data.reshape((message.rows, message.cols), order=order)
