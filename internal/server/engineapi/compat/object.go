package compat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// object is a JSON object in the order it was written.
type object []member

type member struct {
	key   string
	value json.RawMessage
}

func parseObject(data []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	if t != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object: %.40s", data)
	}
	var o object
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		o = append(o, member{k.(string), v})
	}
	return o, nil
}

// encode writes the object without a newline at its end.
func (o object) encode() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(quote(m.key))
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

func quote(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // adapters only encode plain values
	}
	return data
}

func (o object) index(key string) int {
	return slices.IndexFunc(o, func(m member) bool { return m.key == key })
}

// get returns a member, nil if there is none.
func (o object) get(key string) json.RawMessage {
	if i := o.index(key); i >= 0 {
		return o[i].value
	}
	return nil
}

// object returns a member that is an object, nil if it isn't.
func (o object) object(key string) object {
	sub, err := parseObject(o.get(key))
	if err != nil {
		return nil
	}
	return sub
}

func (o object) string(key string) (s string) {
	json.Unmarshal(o.get(key), &s)
	return s
}

// set replaces a member or adds it at the end.
func (o *object) set(key string, v any) {
	raw, ok := v.(json.RawMessage)
	if !ok {
		if sub, isObject := v.(object); isObject {
			raw = sub.encode()
		} else {
			raw = quote(v)
		}
	}
	if i := o.index(key); i >= 0 {
		(*o)[i].value = raw
		return
	}
	*o = append(*o, member{key, raw})
}

// add sets a member only where there is none.
func (o *object) add(key string, v any) {
	if o.index(key) < 0 {
		o.set(key, v)
	}
}

func (o *object) remove(key string) {
	*o = slices.DeleteFunc(*o, func(m member) bool { return m.key == key })
}

// onObject makes a change of bytes from one of an object.
func onObject(change func(*object) error) func([]byte) ([]byte, error) {
	return func(data []byte) ([]byte, error) {
		o, err := parseObject(data)
		if err != nil {
			return nil, err
		}
		if err := change(&o); err != nil {
			return nil, err
		}
		return append(o.encode(), '\n'), nil
	}
}

// onList changes every object of a list.
func onList(change func(*object) error) func([]byte) ([]byte, error) {
	return func(data []byte) ([]byte, error) {
		out, err := eachOf(data, change)
		return append(out, '\n'), err
	}
}

func eachOf(data []byte, change func(*object) error) (json.RawMessage, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	for i := range list {
		o, err := parseObject(list[i])
		if err != nil {
			return nil, err
		}
		if err := change(&o); err != nil {
			return nil, err
		}
		list[i] = o.encode()
	}
	if list == nil {
		return json.RawMessage("[]"), nil
	}
	var b bytes.Buffer
	b.WriteByte('[')
	for i, v := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(v)
	}
	b.WriteByte(']')
	return b.Bytes(), nil
}
