// health reads a JSON list of objects and writes, as a JSON list, what two readers of objects make of each: kstatus, on
// which Helm, Flux and kapply rely, and a health check in Lua, run by the interpreter that Argo CD runs it with.
//
//	health FILE.lua < objects.json
package main

import (
	"fmt"
	"io"
	"os"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type verdict struct {
	Kstatus string `json:"kstatus"`
	Argo    string `json:"argo"`
	Message string `json:"message"`
}

func main() {
	script, err := os.ReadFile(os.Args[1])
	check(err)
	text, err := io.ReadAll(os.Stdin)
	check(err)
	var objects []map[string]any
	check(json.Unmarshal(text, &objects)) // whole numbers are integers, as in an API server's objects
	verdicts := []verdict{}
	for _, object := range objects {
		result, err := status.Compute(&unstructured.Unstructured{Object: object})
		check(err)
		health, message := argo(string(script), object)
		verdicts = append(verdicts, verdict{result.Status.String(), health, message})
	}
	said, err := json.Marshal(verdicts)
	check(err)
	fmt.Println(string(said))
}

// argo runs a script as Argo CD does: the object is the global `obj`, and the script returns a table.
func argo(script string, object map[string]any) (string, string) {
	state := lua.NewState()
	defer state.Close()
	state.SetGlobal("obj", value(state, object))
	check(state.DoString(script))
	table := state.Get(-1).(*lua.LTable)
	return lua.LVAsString(table.RawGetString("status")), lua.LVAsString(table.RawGetString("message"))
}

func value(state *lua.LState, item any) lua.LValue {
	switch item := item.(type) {
	case nil:
		return lua.LNil
	case bool:
		return lua.LBool(item)
	case int64:
		return lua.LNumber(item)
	case float64:
		return lua.LNumber(item)
	case string:
		return lua.LString(item)
	case []any:
		table := state.NewTable()
		for _, inner := range item {
			table.Append(value(state, inner))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for name, inner := range item {
			table.RawSetString(name, value(state, inner))
		}
		return table
	}
	panic(fmt.Sprintf("%T is no JSON", item))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
