// Writes the golden files of this directory with the programs they are to agree with: Go's templates with sprig's functions,
// and yip's own loader and printer. Run by hand; see the README.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"github.com/mudler/yip/pkg/schema"
	"github.com/twpayne/go-vfs/v5"
)

type vector struct {
	Template string  `json:"template"`
	Output   *string `json:"output"`
}

func data() map[string]interface{} {
	return map[string]interface{}{
		"Values": map[string]interface{}{
			"os":   map[string]interface{}{"name": "Debian GNU/Linux 12 (bookworm)", "vendor": "debian", "version": "12", "architecture": "amd64"},
			"list": []interface{}{"c", "a", "b", "a"},
			"n":    3,
			"f":    1.5,
			"zero": 0,
			"no":   false,
			"text": "  Some text, with <b>&'\"\n second line ",
			"none": nil,
		},
	}
}

func render(text string) *string {
	parsed, err := template.New("template").Funcs(sprig.TxtFuncMap()).Parse(text)
	if err != nil {
		return nil
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, data()); err != nil {
		return nil
	}
	rendered := out.String()
	return &rendered
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	source, err := os.ReadFile("templates.txt")
	check(err)
	var vectors []vector
	for _, text := range strings.Split(strings.TrimSuffix(string(source), "\n====\n"), "\n====\n") {
		vectors = append(vectors, vector{text, render(text)})
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	check(encoder.Encode(vectors))
	check(os.WriteFile("templates.json", out.Bytes(), 0o644))

	var names []string
	for name := range sprig.TxtFuncMap() {
		names = append(names, name)
	}
	sort.Strings(names)
	check(os.WriteFile("functions.txt", []byte(strings.Join(names, "\n")+"\n"), 0o644))

	files, err := filepath.Glob("printed/*.in.yaml")
	check(err)
	for _, file := range files {
		config, err := schema.Load(file, vfs.OSFS, schema.FromFile, nil)
		check(err)
		check(os.WriteFile(strings.Replace(file, ".in.yaml", ".out.yaml", 1), []byte(config.ToString()), 0o644))
	}
}
